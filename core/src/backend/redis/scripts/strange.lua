-- Recognises keys that are not dlock's. KEYS: as in common.lua.

-- Returns true if the key is a lock of Redisson's: a hash of `<uuid>:<thread>` and counts.
local function redisson()
  if redis.call('TYPE', KEYS[1]).ok ~= 'hash' or redis.call('HLEN', KEYS[1]) > 1000 then return false end
  local owners = 0
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.match(field, '^%x+%-%x+%-%x+%-%x+%-%x+:%d+') then
      owners = owners + 1
    elseif field ~= 'mode' then
      return false
    end
  end
  return owners > 0
end

-- Returns type and name of the first key of this lock that belongs to another program, or nil.
local function other()
  for i, own in ipairs({'string', 'string', 'zset', 'hash'}) do
    local found = redis.call('TYPE', KEYS[i]).ok
    if found ~= 'none' and found ~= own and not (i == 1 and redisson()) then return {'T', found, KEYS[i]} end
  end
  return nil
end

-- Returns the text that tells the owner of a key that is no string, which is Redisson's, from every other.
local function foreign_owner()
  return table.concat(redis.call('HKEYS', KEYS[1]), ' ')
end
