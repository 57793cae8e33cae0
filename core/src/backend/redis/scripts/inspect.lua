-- What is there to see of one key: owner, its time left, last grant, queue, its details, the server's time.
local K, F, Q, D = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner, grant = redis.pcall('GET', K), redis.pcall('GET', F)
local queue, details = redis.pcall('ZRANGE', Q, 0, 99, 'WITHSCORES'), redis.pcall('HGETALL', D)
local why = type(owner) == 'table' and owner or type(grant) == 'table' and grant
why = why or queue.err and queue or details.err and details
if why then
  local odd = other()
  if odd or type(owner) ~= 'table' then return odd or why end
  owner = {redis.call('TYPE', K).ok}
end
local t = redis.call('TIME')
return {owner, redis.call('PTTL', K), grant, queue, details, t[1], t[2]}
