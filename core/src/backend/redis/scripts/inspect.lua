-- Returns the owner of one key, its time left, the last grant, the queue, the queue's details and the server's time.
local KEY, FENCE, QUEUE, DETAILS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner, grant = redis.pcall('GET', KEY), redis.pcall('GET', FENCE)
local queue, details = redis.pcall('ZRANGE', QUEUE, 0, 99, 'WITHSCORES'), redis.pcall('HGETALL', DETAILS)
local why = type(owner) == 'table' and owner or type(grant) == 'table' and grant
why = why or queue.err and queue or details.err and details
if why then
  local odd = other()
  if odd or type(owner) ~= 'table' then return odd or why end
  owner = {redis.call('TYPE', KEY).ok}
end
local t = redis.call('TIME')
return {owner, redis.call('PTTL', KEY), grant, queue, details, t[1], t[2]}
