-- ARGV: cid claim user-token
return give(ARGV[1], ARGV[2], ARGV[3], nil)
