-- Acquires a lock that is free and has no queue. These are the only lines that an uncontended lock runs. ARGV: as in
-- acquire.lua. Times and fences are microseconds in 16 digits, so that texts compare as numbers do.
local t = redis.call('TIME')
local f = string.format('%010d%06d', t[1], t[2])
if f <= ARGV[3] and redis.call('EXISTS', KEYS[3]) == 0
  and redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local old = redis.pcall('SET', KEYS[2], f .. ARGV[4], 'PX', '604800000', 'GET')
  if type(old) == 'table' then
    -- There is no lock without a fence, and no fence without this key.
    redis.call('DEL', KEYS[1])
    local found = redis.call('TYPE', KEYS[2]).ok
    return (found == 'string' or found == 'none') and old or {'T', found, KEYS[2]}
  end
  if old and old >= f then
    -- The clock went back, or two grants came in one microsecond.
    local next = tonumber(string.match(old, '^%d+')) + 1
    local keep = 604800000 + math.ceil((next - tonumber(f)) / 1000)
    f = string.format('%016.0f', next)
    redis.call('SET', KEYS[2], f .. ARGV[4], 'PX', string.format('%.0f', keep))
  end
  return f
end
