-- What is there to see of one key: owner, its time left, last grant, queue, its details, the server's time.
local owner = redis.pcall('GET', KEYS[1])
if type(owner) == 'table' then owner = {redis.call('TYPE', KEYS[1]).ok} end
local t = redis.call('TIME')
return {owner, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2]),
  redis.call('ZRANGE', KEYS[3], 0, 99, 'WITHSCORES'), redis.call('HGETALL', KEYS[4]), t[1], t[2]}
