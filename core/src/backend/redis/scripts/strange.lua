-- What is no lock, or no part of one. KEYS are K F Q D.

-- a lock of Redisson's: a hash of `<uuid>:<thread>` and counts
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

-- what another program keeps where this lock's own keys are to be: its type and its name; nil: nothing
local function other()
  for i, own in ipairs({'string', 'string', 'zset', 'hash'}) do
    local found = redis.call('TYPE', KEYS[i]).ok
    if found ~= 'none' and found ~= own and not (i == 1 and redisson()) then return {'T', found, KEYS[i]} end
  end
  return nil
end
