-- Functions that several scripts share.
--
-- Layout. KEYS of every script but `renew` are the four keys of one lock, in this order. Names: README.md.
--   KEY      string      the owner token: the claim, or the user's own token. Its ttl is the lease's ttl
--   FENCE    string      `<last fence, 16 digits> <claim of the last grant> <n> <user's token, n bytes><label>`
--   QUEUE    sorted set  contender -> the time of its arrival, in microseconds of the server's clock
--   DETAILS  hash        contender -> `<claim> <how> <stamp> <deadline> <ttl> 1 <n> <user's token, n bytes><label>`
--                          how: `x`: messages reach the contender; `a`: it polls
--                          stamp: the time at the client when the request was sent; a grant by message contains it
--                          deadline: the time when the contender counts as dead, in milliseconds of the server's clock
--                          1: the number of fences that a grant takes
--                        `*` -> `<watch> <free>`: the time until which other clients are watched for, and the time when
--                          the key was or will be left free for them, in milliseconds
-- FENCE expires after FENCE_TTL, QUEUE and DETAILS after QUEUE_TTL.
local KEY, FENCE, QUEUE, DETAILS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local QUEUE_TTL, FENCE_TTL = 60000, 604800000
-- A client that only polls would never find a key free that is handed from one contender to the next. So one in TURNS
-- hand-overs leaves the key free for PAUSE instead, if the last such pause is longer ago than RARE, or than OFTEN while
-- another client was seen within WATCH. All times are in milliseconds.
local WATCH, TURNS, PAUSE, OFTEN, RARE = 60000, 8, 20, 100, 1000

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Formats an integer. tostring() of a number this large loses its last digits.
local function int(n) return string.format('%.0f', n) end

-- Sends a message to a contender. Returns the number of receivers, or nil if this user may not publish. The message is
-- not replicated: a client that still listens at a replica, such as the primary before a failover, would receive a
-- grant that is taken back because it reached nobody here.
local function notify(cid, text)
  redis.set_repl(redis.REPL_NONE)
  local receivers = redis.pcall('PUBLISH', 'dlock:c:' .. cid, text)
  redis.set_repl(redis.REPL_ALL)
  return type(receivers) == 'number' and receivers or nil
end

-- Returns fence and claim of the last grant, and its token if that is the user's own.
local function last_grant()
  local f = redis.pcall('GET', FENCE)
  if type(f) ~= 'string' then return nil end
  local fence, claim, n, rest = string.match(f, '^(%d+) (%S+) (%d+) (.*)$')
  return fence, claim, rest and string.sub(rest, 1, tonumber(n))
end

-- Returns true if this claim owns the key, and the key's value. Several claims may use one user's token; then the last
-- grant names the owner.
local function is_owner(token, claim)
  local v = redis.pcall('GET', KEY)
  if v ~= token then return false, v end
  if token == claim then return true, v end
  local _, owner = last_grant()
  return owner == claim, v
end

-- Stores the next fence and the details of its grant, and returns the fence. Returns nil and the error if FENCE can't
-- be written.
local function next_fence(now, tail)
  local f = string.format('%016.0f', now)
  local old = redis.pcall('SET', FENCE, f .. tail, 'PX', FENCE_TTL, 'GET')
  if type(old) == 'table' then return nil, old end
  if old and old >= f then
    local next = tonumber(string.match(old, '^%d+')) + 1
    f = string.format('%016.0f', next)
    redis.call('SET', FENCE, f .. tail, 'PX', int(FENCE_TTL + math.ceil((next - now) / 1000)))
  end
  return f
end

-- Returns for how long the key is to be left free for other clients, or nil. `noted` is field `*` of DETAILS.
-- `releasing`: the caller owns the key and releases it; otherwise the key is free.
local function pause(now, noted, releasing)
  local ms = math.floor(now / 1000)
  if not noted then
    if releasing then redis.call('HSET', DETAILS, '*', '0 ' .. int(ms)) end
    return nil
  end
  local watch, free = string.match(noted, '^(%d+) (%d+)$')
  watch, free = tonumber(watch), tonumber(free)
  -- A clock that went back must not make the pause long.
  if not releasing then return ms < free and free - ms <= PAUSE and free - ms or nil end
  if now % TURNS ~= 0 or ms < free + (ms < watch and OFTEN or RARE) then return nil end
  redis.call('HSET', DETAILS, '*', int(watch) .. ' ' .. int(ms + PAUSE))
  return PAUSE
end

-- Grants the lock to the first live contender of the queue. `self`: the caller's claim, which gets its grant as the
-- reply and not as a message. `releasing`: as in pause(). Returns the claim and its fence, or nil and the time for
-- which the key stays free. If a key of another program has the name of a side key, the queue counts as empty.
local function promote(now, self, releasing)
  local ms = math.floor(now / 1000)
  while true do
    local first = redis.pcall('ZPOPMIN', QUEUE)
    local cid = first[1]
    if not cid then return nil end
    local found = redis.pcall('HMGET', DETAILS, cid, '*')
    local d = found[1]
    local free = d and pause(now, found[2], releasing)
    if free and (not releasing or (notify(cid, 'W ' .. string.match(d, '^(%S+)') .. ' ' .. KEY) or 0) > 0) then
      redis.call('ZADD', QUEUE, first[2], cid)
      return nil, free
    end
    if d then
      local claim, how, sent, dead, ttl, n, rest = string.match(d, '^(%S+) ([ax]) (%d+) (%d+) (%d+) 1 (%d+) (.*)$')
      if tonumber(dead) >= ms then
        -- A contender that no message reaches keeps its place: the key is kept free until it polls or counts as dead.
        local receivers, f
        if how ~= 'a' or claim == self then
          f = next_fence(now, table.concat({'', claim, n, rest}, ' '))
          if not f then
            redis.call('ZADD', QUEUE, first[2], cid)
            return nil
          end
          redis.call('SET', KEY, n == '0' and claim or string.sub(rest, 1, tonumber(n)), 'PX', ttl)
          receivers = claim == self and 1 or notify(cid, table.concat({'G', claim, f, sent, KEY}, ' '))
          if (receivers or 0) > 0 then
            redis.call('HDEL', DETAILS, cid)
            return claim, f
          end
          redis.call('DEL', KEY)
        end
        if not receivers then
          redis.call('ZADD', QUEUE, first[2], cid)
          return nil, tonumber(dead) - ms + 1
        end
      end
    end
    redis.pcall('HDEL', DETAILS, cid)
  end
end

-- Removes this claim from the queue. Returns true if it was there.
local function leave_queue(cid, claim)
  local d = redis.pcall('HGET', DETAILS, cid)
  if type(d) == 'string' and string.match(d, '^(%S+)') ~= claim or not d then return false end
  redis.pcall('ZREM', QUEUE, cid)
  if type(d) == 'table' then return false end
  redis.call('HDEL', DETAILS, cid)
  return true
end

-- Releases the lock if this claim owns it, and otherwise removes the claim from the queue. Returns G (released), L
-- (left the queue) or A (absent).
local function release(cid, claim, user)
  if is_owner(user ~= '' and user or claim, claim) then
    if redis.call('EXISTS', QUEUE) == 0 or not promote(clock(), '', true) then redis.call('DEL', KEY) end
    return 'G'
  end
  return leave_queue(cid, claim) and 'L' or 'A'
end
