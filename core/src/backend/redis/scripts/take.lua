-- ARGV: wait cid claim user-token ttl block keep sent ticket till label
local wait, cid, claim, user, ttl, block = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local keep, sent, ticket, till, label = tonumber(ARGV[7]), ARGV[8], ARGV[9], tonumber(ARGV[10]), ARGV[11]
local token = user ~= '' and user or claim
local now = clock()
local ms = math.floor(now / 1000)
if ms > till then return {'L', ms} end
local empty = redis.call('EXISTS', Q) == 0
if empty and redis.call('SET', K, token, 'NX', 'PX', ttl) then return step(now, claim, user, block, label) end
local ours, v = mine(token, claim)
if ours then
  -- asked again, or the message was lost
  extend(ttl)
  drop(cid, claim)
  local fence, granted = last()
  if granted == claim then return fence - block + 1 end
  return step(now, claim, user, block, label)
end
if type(v) == 'table' and not redisson() then return {'T', redis.call('TYPE', K).ok} end
if ticket == '0' then ticket = int(now) end
if wait then
  redis.call('ZADD', Q, 'NX', ticket, cid)
  redis.call('HSET', D, cid, table.concat({claim, 'x', sent, int(ms + keep), ttl, block, #user, user .. label}, ' '))
  if empty or ARGV[9] ~= '0' then
    redis.call('PEXPIRE', Q, QKEEP)
    redis.call('PEXPIRE', D, QKEEP)
  end
end
if v == false then
  -- free: the head gets it, whoever asks
  local who, f = promote(now, claim, false)
  if who == claim then return f end
  if not who then
    if f then return {'B', f, 0, ticket, ms} end
    if redis.call('SET', K, token, 'NX', 'PX', ttl) then return step(now, claim, user, block, label) end
  end
  v = redis.pcall('GET', K)
end
local foreign = 0
if type(v) == 'table' then
  foreign = 1
elseif v and string.sub(v, 1, 6) ~= 'dlock:' then
  local _, _, granted = last()
  if granted ~= v then foreign = 1 end
end
if foreign == 1 and wait then
  local noted = redis.call('HGET', D, '*')
  redis.call('HSET', D, '*', int(ms + WATCH) .. (noted and string.match(noted, ' .*$') or ' 0'))
end
return {'B', redis.call('PTTL', K), foreign, ticket, ms}
