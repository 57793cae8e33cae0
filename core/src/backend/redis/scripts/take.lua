-- ARGV: token · ttl · until when it may be done · what F tells of it: ` <claim> <n> <user's token><label>` · and, in
-- one text, whether to queue, cid, claim, n, life of its place, stamp, ticket
local token, ttl, tail = ARGV[1], ARGV[2], ARGV[4]
local wait, cid, claim, n, keep, sent, ticket =
  string.match(ARGV[5], '^(%d) (%S+) (%S+) (%d+) (%d+) (%d+) (%d+)$')
wait = wait == '1'
local now = clock()
local ms = math.floor(now / 1000)
if ms > ARGV[3] / 1000 then return {'L', ms} end
local empty = redis.call('EXISTS', Q) == 0
if empty and redis.call('SET', K, token, 'NX', 'PX', ttl) then return step(now, tail) end
local ours, v = mine(token, claim)
if ours then
  -- asked again, or the message was lost
  extend(ttl)
  drop(cid, claim)
  local fence, granted = last()
  return granted == claim and fence or step(now, tail)
end
if type(v) == 'table' and not redisson() then return {'T', redis.call('TYPE', K).ok} end
local refresh = ticket ~= '0'
if not refresh then ticket = int(now) end
if wait then
  redis.call('ZADD', Q, 'NX', ticket, cid)
  redis.call('HSET', D, cid, table.concat({claim, 'x', sent, int(ms + keep), ttl, 1, string.sub(tail, #claim + 3)}, ' '))
  if empty or refresh then
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
    if redis.call('SET', K, token, 'NX', 'PX', ttl) then return step(now, tail) end
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
