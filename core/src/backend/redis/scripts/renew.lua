-- KEYS: K F of each lease. ARGV: claim user-token ttl of each. Answers 1 (renewed) or 0 (not ours) for each. What is odd
-- about one lease's keys is no error: it would keep the others from being renewed.
local FKEEP = 604800000
local out = {}
for i = 1, #KEYS / 2 do
  local K, F = KEYS[2 * i - 1], KEYS[2 * i]
  local claim, user, ttl = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local function last()
    local f = redis.pcall('GET', F)
    return type(f) == 'string' and string.match(f, '^%d+ (%S+)') == claim
  end
  local ours = redis.pcall('GET', K) == (user ~= '' and user or claim)
  if ours and user ~= '' then ours = last() end
  if ours then
    -- never shorter than what was promised
    if redis.call('PTTL', K) < tonumber(ttl) then redis.call('PEXPIRE', K, ttl) end
    -- a lease may outlive what is known of it
    local left = redis.call('PTTL', F)
    if left >= 0 and left < FKEEP / 2 and last() then redis.call('PEXPIRE', F, FKEEP) end
  end
  out[i] = ours and 1 or 0
end
return out
