-- ARGV: token · ttl · until when it may be done · what F tells of it: ` <claim> <n> <user's token><label>` · and, in
-- one text, whether to queue (0: no; x: yes; a: yes, and messages don't reach it), cid, claim, n, life of its place,
-- stamp, ticket

-- at least so long from now; never shorter than what was promised
local function extend(ttl)
  if redis.call('PTTL', K) < tonumber(ttl) then redis.call('PEXPIRE', K, ttl) end
end

-- the fence of K, which was just set; without one it is given back, and whatever is the reason answered
local function granted(now, tail)
  local f, why = step(now, tail)
  if f then return f end
  redis.call('DEL', K)
  return other() or why
end

local token, ttl, tail = ARGV[1], ARGV[2], ARGV[4]
local how, cid, claim, n, keep, sent, ticket =
  string.match(ARGV[5], '^(%S) (%S+) (%S+) (%d+) (%d+) (%d+) (%d+)$')
local wait = how ~= '0'
local now = clock()
local ms = math.floor(now / 1000)
if ms > ARGV[3] / 1000 then return {'L', ms} end
local empty = redis.call('EXISTS', Q) == 0
if empty and redis.call('SET', K, token, 'NX', 'PX', ttl) then return granted(now, tail) end
local ours, v = mine(token, claim)
if ours then
  -- asked again, or the message was lost
  extend(ttl)
  drop(cid, claim)
  local fence, by = last()
  return by == claim and fence or granted(now, tail)
end
local odd = (type(v) == 'table' or not empty and not wait) and other()
if odd then return odd end
local refresh = ticket ~= '0'
if not refresh then ticket = int(now) end
if wait then
  local place = table.concat({claim, how, sent, int(ms + keep), ttl, 1, string.sub(tail, #claim + 3)}, ' ')
  local done = redis.pcall('HSET', D, cid, place)
  if type(done) == 'table' then return other() or done end
  done = redis.pcall('ZADD', Q, 'NX', ticket, cid)
  if type(done) == 'table' then
    redis.call('HDEL', D, cid)
    return other() or done
  end
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
    if redis.call('SET', K, token, 'NX', 'PX', ttl) then return granted(now, tail) end
  end
  v = redis.pcall('GET', K)
end
local foreign = 0
if type(v) == 'table' then
  foreign = 1
elseif v and string.sub(v, 1, 6) ~= 'dlock:' then
  local _, _, given = last()
  if given ~= v then foreign = 1 end
end
if foreign == 1 and wait then
  local noted = redis.call('HGET', D, '*')
  redis.call('HSET', D, '*', int(ms + WATCH) .. (noted and string.match(noted, ' .*$') or ' 0'))
end
return {'B', redis.call('PTTL', K), foreign, ticket, ms}
