-- Releases the lock or leaves the queue, for a claim that has ended. ARGV: contender, claim, user's token. If the
-- user's token is not given, the last grant may contain it. Returns what release() returns, and the server's time.
local user = ARGV[3]
if user == '' then
  local _, claim, token = last_grant()
  if claim == ARGV[2] then user = token end
end
return {release(ARGV[1], ARGV[2], user), math.floor(clock() / 1000)}
