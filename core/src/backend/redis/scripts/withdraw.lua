-- ARGV: cid claim user-token; of a claim that has ended the last grant knows the token
local user = ARGV[3]
if user == '' then
  local _, granted, token = last()
  if granted == ARGV[2] then user = token end
end
return {give(ARGV[1], ARGV[2], user, nil), math.floor(clock() / 1000)}
