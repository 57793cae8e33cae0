-- Nobody holds it and nobody waits: the only lines that an uncontended lock ever runs.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now <= ARGV[10] * 1000 and redis.call('EXISTS', KEYS[3]) == 0
  and redis.call('SET', KEYS[1], ARGV[4] ~= '' and ARGV[4] or ARGV[3], 'NX', 'PX', ARGV[5]) then
  local stop = now + ARGV[6] - 1
  local tail = ' ' .. ARGV[3] .. ' ' .. #ARGV[4] .. ' ' .. ARGV[4] .. ARGV[11]
  local old = redis.call('SET', KEYS[2], string.format('%.0f', stop) .. tail, 'PX', 604800000, 'GET')
  local o = old and tonumber(string.match(old, '^%d+'))
  if o and o >= now then
    stop = o + ARGV[6]
    local keep = 604800000 + math.max(0, math.ceil((stop - now) / 1000))
    redis.call('SET', KEYS[2], string.format('%.0f', stop) .. tail, 'PX', string.format('%.0f', keep))
  end
  return stop - ARGV[6] + 1
end
