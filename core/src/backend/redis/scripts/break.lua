-- Takes the key away from whoever has it, tells the last that was granted, and names the next.
local v = redis.pcall('GET', K)
if v == false then return 0 end
local odd = type(v) == 'table' and other()
if odd then return odd end
local _, claim = last()
if claim then tell(string.match(claim, '^(.*)%.%d+$'), 'X ' .. claim .. ' ' .. K) end
if type(v) == 'table' or redis.call('EXISTS', Q) == 0 or not promote(clock(), '', true) then redis.call('DEL', K) end
return 1
