-- Takes the key away from its owner, notifies the claim of the last grant, and grants the lock to the next contender.
-- ARGV: the owner and the last grant, as the call before returned them. A lock that has another owner by now is left
-- alone, so that a call that arrives late or twice takes no second lock.
-- Returns 1, or 0 if the key was free, or {owner, last grant} if another has it, or {'T', type, key}: not a lock.
local v = redis.pcall('GET', KEY)
if v == false then return 0 end
local odd = type(v) == 'table' and other()
if odd then return odd end
local owner = type(v) == 'table' and foreign_owner() or v
local grant = redis.pcall('GET', FENCE)
grant = type(grant) == 'string' and grant or ''
if owner ~= ARGV[1] or grant ~= ARGV[2] then return {owner, grant} end
local _, claim = last_grant()
if claim then notify(string.match(claim, '^(.*)%.%d+$'), 'X ' .. claim .. ' ' .. KEY) end
local free = type(v) == 'table' or redis.call('EXISTS', QUEUE) == 0
if free or not promote(clock(), '', true) then redis.call('DEL', KEY) end
return 1
