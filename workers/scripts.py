"""The Lua scripts of the worker: RQ's own bookkeeping, for many jobs in one atomic step.

Keys, as in RQ: `rq:queue:<name>` (list of job ids), `rq:scheduled:<name>` (sorted set by due time), `rq:wip:<name>`
(the started registry, sorted set of `<job id>:<execution id>` by the end of the lease), `rq:job:<id>` (hash).
"""

# ARGV: how many, now, end of the lease, execution id, worker name, queue names...
# Moves what is due from the scheduled registries to the queues, then takes from the queues in their order.
# A job that was put there twice is taken once. Returns rows of {job id, queue name, data}.
TAKE = """
if redis.call('EXISTS', 'rq:suspended') == 1 then return {} end
local wanted, now, lease, execution, worker = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local taken = {}
for i = 6, #ARGV do
    local list, scheduled, started = 'rq:queue:' .. ARGV[i], 'rq:scheduled:' .. ARGV[i], 'rq:wip:' .. ARGV[i]
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'LIMIT', 0, wanted)) do
        redis.call('ZREM', scheduled, id)
        if redis.call('EXISTS', 'rq:job:' .. id) == 1 then
            redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
            redis.call('RPUSH', list, id)
        end
    end
    while #taken < wanted do
        local id = redis.call('LPOP', list)
        if not id then break end
        local job = redis.call('HMGET', 'rq:job:' .. id, 'data', 'status')
        if job[1] and job[2] ~= 'started' then
            redis.call('HSET', 'rq:job:' .. id, 'status', 'started', 'worker_name', worker, 'execution', execution)
            redis.call('ZADD', started, lease, id .. ':' .. execution)
            taken[#taken + 1] = {id, ARGV[i], job[1]}
        end
    end
end
return taken
"""

# ARGV: worker name, JSON rows of [queue name, job id, execution id, time to come again or ""]
# A job that somebody else has started or queued meanwhile is left to them: only the own entry goes.
END = """
local finished = 0
for _, row in ipairs(cjson.decode(ARGV[2])) do
    local name, id, execution, again = row[1], row[2], row[3], row[4]
    local key = 'rq:job:' .. id
    local held = redis.call('ZREM', 'rq:wip:' .. name, id .. ':' .. execution) == 1
    local job = redis.call('HMGET', key, 'status', 'execution')
    if held and job[1] == 'started' and job[2] == execution then
        if again == '' then
            redis.call('DEL', key, 'rq:results:' .. id)
            redis.call('ZREM', 'rq:failed:' .. name, id)
            finished = finished + 1
        else
            redis.call('HSET', key, 'status', 'scheduled')
            redis.call('ZADD', 'rq:scheduled:' .. name, again, id)
        end
    end
end
redis.call('HINCRBY', 'rq:worker:' .. ARGV[1], 'successful_job_count', finished)
return 0
"""

# ARGV: now, queue names...
# Puts jobs whose lease has ended back at the front of their queues. Returns how many.
RECOVER = """
local recovered = 0
for i = 2, #ARGV do
    local started = 'rq:wip:' .. ARGV[i]
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 1000)) do
        redis.call('ZREM', started, member)
        local id = string.match(member, '^(.*):')
        if id and redis.call('HGET', 'rq:job:' .. id, 'status') == 'started' then
            redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
            redis.call('LPUSH', 'rq:queue:' .. ARGV[i], id)
            recovered = recovered + 1
        end
    end
end
return recovered
"""
