-- Takes the key away from its owner, notifies the claim of the last grant, and grants the lock to the next contender.
-- Returns 1, or 0 if the key was free, or {'T', type, key}: not a lock.
local v = redis.pcall('GET', KEY)
if v == false then return 0 end
local odd = type(v) == 'table' and other()
if odd then return odd end
local _, claim = last_grant()
if claim then notify(string.match(claim, '^(.*)%.%d+$'), 'X ' .. claim .. ' ' .. KEY) end
local free = type(v) == 'table' or redis.call('EXISTS', QUEUE) == 0
if free or not promote(clock(), '', true) then redis.call('DEL', KEY) end
return 1
