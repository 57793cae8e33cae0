-- KEYS: K F of each lease. ARGV: claim user-token ttl of each. Answers 1 (renewed) or 0 (not ours) for each.
local out = {}
for i = 1, #KEYS / 2 do
  local K, F = KEYS[2 * i - 1], KEYS[2 * i]
  local claim, user, ttl = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local ours = redis.pcall('GET', K) == (user ~= '' and user or claim)
  if ours and user ~= '' then ours = string.match(redis.call('GET', F) or '', '^%d+ (%S+)') == claim end
  -- never shorter than what was promised
  if ours and redis.call('PTTL', K) < tonumber(ttl) then redis.call('PEXPIRE', K, ttl) end
  out[i] = ours and 1 or 0
end
return out
