-- Renews leases. KEYS: key and fence key of each lease. ARGV: claim, user's token and ttl of each. Returns 1 (renewed)
-- or 0 (not ours) for each. An odd type of one lease's key is no error, which would stop the renewal of the others.
local FENCE_TTL = 604800000
local out = {}
for i = 1, #KEYS / 2 do
  local KEY, FENCE = KEYS[2 * i - 1], KEYS[2 * i]
  local claim, user, ttl = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local function is_last()
    local f = redis.pcall('GET', FENCE)
    return type(f) == 'string' and string.match(f, '^%d+ (%S+)') == claim
  end
  local ours = redis.pcall('GET', KEY) == (user ~= '' and user or claim)
  if ours and user ~= '' then ours = is_last() end
  if ours then
    -- A lease never becomes shorter than what was promised.
    if redis.call('PTTL', KEY) < tonumber(ttl) then redis.call('PEXPIRE', KEY, ttl) end
    -- A lease may outlive its fence key.
    local left = redis.call('PTTL', FENCE)
    if left >= 0 and left < FENCE_TTL / 2 and is_last() then redis.call('PEXPIRE', FENCE, FENCE_TTL) end
  end
  out[i] = ours and 1 or 0
end
return out
