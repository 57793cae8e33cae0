-- Acquires the lock, or adds the contender to the queue.
--
-- ARGV: token · ttl · the deadline of this request, in microseconds of the server's clock · what FENCE says after the
-- fence: ` <claim> <n> <user's token><label>` · in one text: whether to queue (0: no; x: yes; a: yes, and messages
-- don't reach the contender), contender, claim, n, how long it counts as alive, stamp, ticket (its time of arrival; 0:
-- new)
--
-- Returns the fence; or {'L', time}: too late; or {'B', ttl of the key, 1 if another client holds it, ticket, time};
-- or {'T', type, key}: not a lock.

-- Extends the key's ttl to at least this. A lease never becomes shorter than what was promised.
local function extend(ttl)
  if redis.call('PTTL', KEY) < tonumber(ttl) then redis.call('PEXPIRE', KEY, ttl) end
end

-- Returns the fence of the key, which was just set. Without a fence it deletes the key and returns the reason.
local function granted(now, tail)
  local f, why = next_fence(now, tail)
  if f then return f end
  redis.call('DEL', KEY)
  return other() or why
end

local token, ttl, tail = ARGV[1], ARGV[2], ARGV[4]
local how, cid, claim, n, keep, sent, ticket =
  string.match(ARGV[5], '^(%S) (%S+) (%S+) (%d+) (%d+) (%d+) (%d+)$')
local wait = how ~= '0'
local now = clock()
local ms = math.floor(now / 1000)
if ms > ARGV[3] / 1000 then return {'L', ms} end
local empty = redis.call('EXISTS', QUEUE) == 0
if empty and redis.call('SET', KEY, token, 'NX', 'PX', ttl) then return granted(now, tail) end
local ours, v = is_owner(token, claim)
if ours then
  -- The request was repeated, or the message of the grant was lost.
  extend(ttl)
  leave_queue(cid, claim)
  local fence, by = last_grant()
  return by == claim and fence or granted(now, tail)
end
local odd = (type(v) == 'table' or not empty and not wait) and other()
if odd then return odd end
local refresh = ticket ~= '0'
if not refresh then ticket = int(now) end
if wait then
  local details = table.concat({claim, how, sent, int(ms + keep), ttl, 1, string.sub(tail, #claim + 3)}, ' ')
  local done = redis.pcall('HSET', DETAILS, cid, details)
  if type(done) == 'table' then return other() or done end
  done = redis.pcall('ZADD', QUEUE, 'NX', ticket, cid)
  if type(done) == 'table' then
    redis.call('HDEL', DETAILS, cid)
    return other() or done
  end
  if empty or refresh then
    redis.call('PEXPIRE', QUEUE, QUEUE_TTL)
    redis.call('PEXPIRE', DETAILS, QUEUE_TTL)
  end
end
if v == false then
  -- The key is free: the first of the queue gets it, whichever contender asks.
  local first, f = promote(now, claim, false)
  if first == claim then return f end
  if not first then
    if f then return {'B', f, 0, ticket, ms} end
    if redis.call('SET', KEY, token, 'NX', 'PX', ttl) then return granted(now, tail) end
  end
  v = redis.pcall('GET', KEY)
end
local foreign = 0
if type(v) == 'table' then
  foreign = 1
elseif v and string.sub(v, 1, 6) ~= 'dlock:' then
  local _, _, user = last_grant()
  if user ~= v then foreign = 1 end
end
if foreign == 1 and wait then
  local noted = redis.call('HGET', DETAILS, '*')
  redis.call('HSET', DETAILS, '*', int(ms + WATCH) .. (noted and string.match(noted, ' .*$') or ' 0'))
end
return {'B', redis.call('PTTL', KEY), foreign, ticket, ms}
