-- Shared by the scripts that need more than their first lines. KEYS are always K F Q D, see README.md.
local K, F, Q, D = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local QKEEP, FKEEP = 60000, 604800000
-- Clients that only look now and then would never find free what is handed from one to the next. So one in TURNS times
-- it is left free for PAUSE instead, if the last time is longer ago than RARE, or than OFTEN while another client was
-- seen within WATCH. All in milliseconds.
local WATCH, TURNS, PAUSE, OFTEN, RARE = 60000, 8, 20, 100, 1000

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- tostring() of a number this large loses its last digits
local function int(n) return string.format('%.0f', n) end

-- How many heard it; nil: this user may not publish. It is not replicated: whoever still listens at a replica, such as the
-- primary before a failover, would hear of a grant that is taken back since nobody heard of it here.
local function tell(cid, text)
  redis.set_repl(redis.REPL_NONE)
  local heard = redis.pcall('PUBLISH', 'dlock:c:' .. cid, text)
  redis.set_repl(redis.REPL_ALL)
  return type(heard) == 'number' and heard or nil
end

-- the last grant: its fence, its claim, and its token where that is the user's
local function last()
  local f = redis.pcall('GET', F)
  if type(f) ~= 'string' then return nil end
  local fence, claim, n, rest = string.match(f, '^(%d+) (%S+) (%d+) (.*)$')
  return fence, claim, rest and string.sub(rest, 1, tonumber(n))
end

-- whether the key is this claim's: under a user's token, which others may use as well, the last grant tells
local function mine(token, claim)
  local v = redis.pcall('GET', K)
  if v ~= token then return false, v end
  if token == claim then return true, v end
  local _, granted = last()
  return granted == claim, v
end

-- the next fence, and what F is to tell of its grant; nil and the error where F can't be written
local function step(now, tail)
  local f = string.format('%016.0f', now)
  local old = redis.pcall('SET', F, f .. tail, 'PX', FKEEP, 'GET')
  if type(old) == 'table' then return nil, old end
  if old and old >= f then
    local next = tonumber(string.match(old, '^%d+')) + 1
    f = string.format('%016.0f', next)
    redis.call('SET', F, f .. tail, 'PX', int(FKEEP + math.ceil((next - now) / 1000)))
  end
  return f
end

-- How long the key is to be left free for others, nil: not at all. `noted` is what D tells of them: until when they
-- are watched for, and when it was or will have been left free.
local function pause(now, noted, giving)
  local ms = math.floor(now / 1000)
  if not noted then
    if giving then redis.call('HSET', D, '*', '0 ' .. int(ms)) end
    return nil
  end
  local watch, free = string.match(noted, '^(%d+) (%d+)$')
  watch, free = tonumber(watch), tonumber(free)
  -- a clock that went back must not make it long
  if not giving then return ms < free and free - ms <= PAUSE and free - ms or nil end
  if now % TURNS ~= 0 or ms < free + (ms < watch and OFTEN or RARE) then return nil end
  redis.call('HSET', D, '*', int(watch) .. ' ' .. int(ms + PAUSE))
  return PAUSE
end

-- Names the next owner. `self`: the caller's claim, whose grant is the reply and not a message. `giving`: the key is
-- the caller's to give, else it is free. Answers the claim and its fence; or nil and how long nobody is to be named.
-- A key of another program's among the side keys counts as a queue without anybody.
local function promote(now, self, giving)
  local ms = math.floor(now / 1000)
  while true do
    local first = redis.pcall('ZPOPMIN', Q)
    local cid = first[1]
    if not cid then return nil end
    local noted = redis.pcall('HMGET', D, cid, '*')
    local d = noted[1]
    local free = d and pause(now, noted[2], giving)
    if free and (not giving or (tell(cid, 'W ' .. string.match(d, '^(%S+)') .. ' ' .. K) or 0) > 0) then
      redis.call('ZADD', Q, first[2], cid)
      return nil, free
    end
    if d then
      local claim, how, sent, dead, ttl, n, rest = string.match(d, '^(%S+) ([ax]) (%d+) (%d+) (%d+) 1 (%d+) (.*)$')
      if tonumber(dead) >= ms then
        -- Whom no message reaches is not passed over: the key is kept free for it, until it looks or counts as dead.
        local heard, f
        if how ~= 'a' or claim == self then
          f = step(now, table.concat({'', claim, n, rest}, ' '))
          if not f then
            redis.call('ZADD', Q, first[2], cid)
            return nil
          end
          redis.call('SET', K, n == '0' and claim or string.sub(rest, 1, tonumber(n)), 'PX', ttl)
          heard = claim == self and 1 or tell(cid, table.concat({'G', claim, f, sent, K}, ' '))
          if (heard or 0) > 0 then
            redis.call('HDEL', D, cid)
            return claim, f
          end
          redis.call('DEL', K)
        end
        if not heard then
          redis.call('ZADD', Q, first[2], cid)
          return nil, tonumber(dead) - ms + 1
        end
      end
    end
    redis.pcall('HDEL', D, cid)
  end
end

-- leaves the queue, if this claim stands there
local function drop(cid, claim)
  local d = redis.pcall('HGET', D, cid)
  if type(d) == 'string' and string.match(d, '^(%S+)') ~= claim or not d then return false end
  redis.pcall('ZREM', Q, cid)
  if type(d) == 'table' then return false end
  redis.call('HDEL', D, cid)
  return true
end

-- gives the key on if it is this claim's, leaves the queue if it stands there
local function give(cid, claim, user, now)
  if mine(user ~= '' and user or claim, claim) then
    if redis.call('EXISTS', Q) == 0 or not promote(now or clock(), '', true) then redis.call('DEL', K) end
    return 'G'
  end
  return drop(cid, claim) and 'L' or 'A'
end
