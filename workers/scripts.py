"""The Lua scripts over RQ's own keys: jobs put, taken, ended and taken back, many in one atomic step.

Keys, as in RQ: `rq:queue:<name>` (list of job ids), `rq:scheduled:<name>` (sorted set by due time), `rq:wip:<name>`
(the started registry, sorted set of `<job id>:<execution id>` by the end of the lease), `rq:job:<id>` (hash).
Of RQ's rate limits, here one for each provider: `rq:rl:<key>` (hash; its `concurrency` is how many jobs may be queued
or started), `rq:rl:<key>:allowed` (those that are), `rq:rl:<key>:rate_limited` (those that wait, by when they came).

Of Datahog: `datahog:policy:<key>` (hash: how many `failures` open the breaker, for how many `openSeconds`, and
`probeSeconds`, which a probe may take), `datahog:breaker:<key>` (hash: `failures` in a row, `openUntil`, `probeUntil`),
and `datahog:held` (sorted set of keys by when to look again): whose breaker is open, or which have taken their share of
a worker. The waiting jobs of these do not pass through the queue, where others would wait behind them: TAKE gives to
each what it may have.
"""

_COMMON = """
local function waiting_of(key) return 'rq:rl:' .. key .. ':rate_limited' end
local function allowed_of(key) return 'rq:rl:' .. key .. ':allowed' end
local function free_places(key)
    return tonumber(redis.call('HGET', 'rq:rl:' .. key, 'concurrency') or 1) - redis.call('ZCARD', allowed_of(key))
end

local function queue(id, name)
    redis.call('HSET', 'rq:job:' .. id, 'status', 'queued')
    redis.call('RPUSH', 'rq:queue:' .. name, id)
end

-- Lets those that wait longest onto their queues, as many as there are places.
local function promote(key)
    if redis.call('ZSCORE', 'datahog:held', key) then return end
    while free_places(key) > 0 do
        local id, came = unpack(redis.call('ZPOPMIN', waiting_of(key)))
        if not id then return end
        local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'origin')
        if job[1] == 'rate_limited' then
            redis.call('ZADD', allowed_of(key), came, id)
            queue(id, job[2])
        end
    end
end

local function release(key, id)
    redis.call('ZREM', allowed_of(key), id)
    promote(key)
end

-- A job that is due goes onto its queue, behind those that came before it and wait for the same provider.
local function admit(id, name, key, came)
    if not key then return queue(id, name) end
    redis.call('HSET', 'rq:job:' .. id, 'status', 'rate_limited')
    redis.call('ZADD', waiting_of(key), came, id)
    promote(key)
end
"""

# ARGV: now, now as RQ writes it, timeout, JSON of {key: [concurrency, fields of `datahog:policy:<key>`]},
# then for each job: queue name, job id, data, time it is due or "" for now, key or ""
PUT = (
    _COMMON
    + """
local now, text, timeout = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local limits = cjson.decode(ARGV[4])
for key, limit in pairs(limits) do
    redis.call('SADD', 'rq:rl-keys', key)
    redis.call('HSET', 'rq:rl:' .. key, 'concurrency', limit[1])
    for name, value in pairs(limit[2]) do redis.call('HSET', 'datahog:policy:' .. key, name, value) end
end
for i = 5, #ARGV, 5 do
    local name, id, data, due, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    redis.call('SADD', 'rq:queues', 'rq:queue:' .. name)
    redis.call('HSET', 'rq:job:' .. id, 'created_at', text, 'enqueued_at', text, 'data', data, 'origin', name,
        'description', id, 'timeout', timeout, 'result_ttl', 0, 'status', 'scheduled')
    if key == '' then key = nil else
        redis.call('HSET', 'rq:job:' .. id, 'rate_limit_key', key, 'rate_limit_concurrency', limits[key][1])
    end
    if due == '' then admit(id, name, key, now + i / 1e6) else redis.call('ZADD', 'rq:scheduled:' .. name, due, id) end
end
"""
)

# ARGV: how many, now, now as RQ writes it, end of the lease, execution id, worker name,
# how many of one key, JSON of how many of those keys of which it is fewer, queue names...
# Moves what is due from the scheduled registries to the queues; takes of the keys that are held what they may have,
# then from the queues in their order. A job that was put there twice is taken once.
# Returns rows of {job id, queue name, data, key or "", timeout or "", 1 when nothing but its end is left of it or 0,
# 1 when it was begun before or 0}.
TAKE = (
    _COMMON
    + """
if redis.call('EXISTS', 'rq:suspended') == 1 then return {} end
local wanted, now, text, lease, execution, worker = tonumber(ARGV[1]), tonumber(ARGV[2]), unpack(ARGV, 3, 6)
local most, rooms, breakers = tonumber(ARGV[7]), cjson.decode(ARGV[8]), {}
local taken, started, dependents = {}, {}, {}

local function room(key) return rooms[key] or most end

-- How many jobs the breaker of a key lets through, and when to look again.
local function breaker(key)
    if not breakers[key] then
        local state = redis.call('HMGET', 'datahog:breaker:' .. key, 'openUntil', 'probeUntil')
        local open, probe = tonumber(state[1] or 0), tonumber(state[2] or 0)
        local policy = state[1] and redis.call('HMGET', 'datahog:policy:' .. key, 'openSeconds', 'probeSeconds') or {}
        -- What is later than it can be was written before the clock was set back.
        if open > now + tonumber(policy[1] or 86400) + 1 then open = now end
        if probe > now + tonumber(policy[2] or 60) + 1 then probe = now end
        if not state[1] then breakers[key] = {math.huge, now}
        elseif open > now then breakers[key] = {0, open}
        elseif probe > now then breakers[key] = {0, math.min(probe, now + 1)}
        else breakers[key] = {1, now + 1} end
    end
    return unpack(breakers[key])
end

local function look(id)
    return redis.call('HMGET', 'rq:job:' .. id, 'data', 'status', 'origin', 'rate_limit_key', 'timeout', 'result_ttl',
        'success_callback_name', 'webhooks', 'repeats_left', 'group_id', 'begun_before', 'ttl')
end

local function plain(job)
    if job[6] ~= '0' then return 0 end
    for i = 7, 10 do if job[i] and job[i] ~= '' then return 0 end end
    return 1
end

local function start(id, job)
    local name, key = job[3], job[4]
    redis.call('HSET', 'rq:job:' .. id, 'status', 'started', 'worker_name', worker, 'execution', execution,
        'started_at', text)
    if job[12] then redis.call('PERSIST', 'rq:job:' .. id) end
    local members = started[name] or {}
    members[#members + 1], members[#members + 2], started[name] = lease, id .. ':' .. execution, members
    dependents[#dependents + 1] = 'rq:job:' .. id .. ':dependents'
    taken[#taken + 1] = {id, name, job[1], key or '', job[5] or '', plain(job), job[11] and 1 or 0}
    if not key then return end
    redis.call('ZADD', allowed_of(key), 'NX', now, id)
    rooms[key] = room(key) - 1
    if breaker(key) == 1 then
        local probe = now + tonumber(redis.call('HGET', 'datahog:policy:' .. key, 'probeSeconds') or 60)
        redis.call('HSET', 'datahog:breaker:' .. key, 'probeUntil', probe)
        breakers[key] = {0, now + 1}
    end
end

-- RQ writes a limit down when a job is queued, and forgets it when none is queued, started or waiting.
local function know(key, places)
    if redis.call('HSETNX', 'rq:rl:' .. key, 'concurrency', places) == 1 then
        redis.call('SADD', 'rq:rl-keys', key)
    end
end

local function hold_back(id, key, again)
    local came = redis.call('ZSCORE', allowed_of(key), id) or now
    redis.call('ZREM', allowed_of(key), id)
    redis.call('HSET', 'rq:job:' .. id, 'status', 'rate_limited')
    redis.call('ZADD', waiting_of(key), came, id)
    redis.call('ZADD', 'datahog:held', 'NX', again, key)
end

for i = 9, #ARGV do
    local scheduled = 'rq:scheduled:' .. ARGV[i]
    local due = redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1000)
    for j = 1, #due, 2 do
        redis.call('ZREM', scheduled, due[j])
        local job = redis.call('HMGET', 'rq:job:' .. due[j], 'data', 'rate_limit_key', 'rate_limit_concurrency')
        if job[3] then know(job[2], job[3]) end
        if job[1] then admit(due[j], ARGV[i], job[2], due[j + 1]) end
    end
end

local held = redis.call('ZRANGEBYSCORE', 'datahog:held', '-inf', now, 'LIMIT', 0, 1000)
local share = math.max(1, math.floor(wanted / (#held + 1)))
for _, key in ipairs(held) do
    if #taken >= wanted then break end
    local let, again = breaker(key)
    local count = math.min(share, wanted - #taken, room(key), let, free_places(key))
    local popped = count > 0 and redis.call('ZPOPMIN', waiting_of(key), count) or {}
    for j = 1, #popped, 2 do
        local job = look(popped[j])
        if job[2] == 'rate_limited' then start(popped[j], job) end
    end
    -- Taken out first: a full Redis lets a script write only what follows something that needs no memory.
    redis.call('ZREM', 'datahog:held', key)
    if redis.call('ZCARD', waiting_of(key)) > 0 then redis.call('ZADD', 'datahog:held', again, key) end
end

for i = 9, #ARGV do
    local looked = 0
    while #taken < wanted and looked < 1000 do
        local ids = redis.call('LPOP', 'rq:queue:' .. ARGV[i], wanted - #taken)
        if not ids then break end
        looked = looked + #ids
        for _, id in ipairs(ids) do
            local job = look(id)
            if job[1] and job[2] ~= 'started' then
                local key, let, again = job[4], 1, now
                if key then let, again = breaker(key) end
                if key and (let < 1 or room(key) < 1) then hold_back(id, key, again) else start(id, job) end
            end
        end
    end
end

for name, members in pairs(started) do redis.call('ZADD', 'rq:wip:' .. name, unpack(members)) end
if #dependents > 0 and redis.call('EXISTS', unpack(dependents)) > 0 then
    for number, dependent in ipairs(dependents) do
        if redis.call('EXISTS', dependent) == 1 then taken[number][6] = 0 end
    end
end
return taken
"""
)

# ARGV: now, worker name, JSON rows of [queue name, job id, execution id, key or "",
# time to come again, or "" for never, or "goes on" when it has not ended and needs its place no more,
# 1 when what the key names answered, 0 when it did not, "" when it was not asked]
# A job that somebody else has started or queued meanwhile is left to them: only the own entry goes.
END = (
    _COMMON
    + """
local now, worker, finished = tonumber(ARGV[1]), ARGV[2], 0

local function count(key, answered)
    local state = 'datahog:breaker:' .. key
    if answered == 1 then
        if redis.call('DEL', state) == 1 then redis.call('ZADD', 'datahog:held', 'XX', now, key) end
        return
    end
    local failures = redis.call('HINCRBY', state, 'failures', 1)
    local policy = redis.call('HMGET', 'datahog:policy:' .. key, 'failures', 'openSeconds')
    if policy[1] and failures >= tonumber(policy[1]) then
        local open = now + tonumber(policy[2])
        redis.call('HSET', state, 'openUntil', open)
        redis.call('HDEL', state, 'probeUntil')
        redis.call('ZADD', 'datahog:held', open, key)
    end
    redis.call('EXPIRE', state, 172800)
end

-- Of each queue, which entries in the started registry are still there; they go.
local rows, members, there = cjson.decode(ARGV[3]), {}, {}
for _, row in ipairs(rows) do
    local name, id, execution, _, again = unpack(row)
    if again ~= 'goes on' then
        members[name] = members[name] or {}
        table.insert(members[name], id .. ':' .. execution)
    end
end
for name, list in pairs(members) do
    for number, score in ipairs(redis.call('ZMSCORE', 'rq:wip:' .. name, unpack(list))) do
        there[list[number]] = score
    end
    redis.call('ZREM', 'rq:wip:' .. name, unpack(list))
end

local gone, failed, freed = {}, {}, {}
for _, row in ipairs(rows) do
    local name, id, execution, key, again, answered = unpack(row)
    local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'execution')
    local own = job[1] == 'started' and job[2] == execution
    local member = id .. ':' .. execution
    local held = false
    -- That it goes on may be told together with its end, which then still counts.
    if again ~= 'goes on' then held, there[member] = there[member], nil end
    if key ~= '' and answered ~= '' then count(key, answered) end
    if held and own then
        if again == '' then
            gone[#gone + 1], gone[#gone + 2] = 'rq:job:' .. id, 'rq:results:' .. id
            failed[name] = failed[name] or {}
            table.insert(failed[name], id)
            finished = finished + 1
        else
            redis.call('HSET', 'rq:job:' .. id, 'status', 'scheduled', 'begun_before', 1)
            redis.call('ZADD', 'rq:scheduled:' .. name, again, id)
        end
    end
    if key ~= '' and (again == 'goes on' and own or held and (own or not job[1])) then
        freed[key] = freed[key] or {}
        table.insert(freed[key], id)
    end
end
if #gone > 0 then redis.call('DEL', unpack(gone)) end
for name, list in pairs(failed) do redis.call('ZREM', 'rq:failed:' .. name, unpack(list)) end
for key, list in pairs(freed) do
    redis.call('ZREM', allowed_of(key), unpack(list))
    promote(key)
end
redis.call('HINCRBY', 'rq:worker:' .. worker, 'successful_job_count', finished)
"""
)

# ARGV: now, queue names...
# Puts jobs whose lease has ended back at the front of their queues; their places stay theirs. Returns how many.
RECOVER = """
local recovered = 0
for i = 2, #ARGV do
    local started = 'rq:wip:' .. ARGV[i]
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 1000)) do
        redis.call('ZREM', started, member)
        local id = string.match(member, '^(.*):')
        if id and redis.call('HGET', 'rq:job:' .. id, 'status') == 'started' then
            redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'begun_before', 1)
            redis.call('LPUSH', 'rq:queue:' .. ARGV[i], id)
            recovered = recovered + 1
        end
    end
end
return recovered
"""

# ARGV: now, end of the lease, queue names...
# Has what waits for a time that was told by a clock since set back wait no more. To do it twice is to do it once.
WAIT_NO_MORE = """
local now, lease = ARGV[1], ARGV[2]
for i = 3, #ARGV do
    local scheduled, started = 'rq:scheduled:' .. ARGV[i], 'rq:wip:' .. ARGV[i]
    redis.call('ZUNIONSTORE', scheduled, 1, scheduled, 'WEIGHTS', 0)
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', started, lease, '+inf')) do
        redis.call('ZADD', started, 'XX', lease, member)
    end
end
for _, key in ipairs(redis.call('ZRANGE', 'datahog:held', 0, -1)) do redis.call('ZADD', 'datahog:held', now, key) end
"""

# ARGV: job ids...
# Forgets jobs that nobody has begun; what is left of them on a queue is passed over.
DROP = (
    _COMMON
    + """
for _, id in ipairs(ARGV) do
    local job = redis.call('HMGET', 'rq:job:' .. id, 'status', 'origin', 'rate_limit_key')
    if job[1] and job[1] ~= 'started' then
        redis.call('DEL', 'rq:job:' .. id)
        redis.call('ZREM', 'rq:scheduled:' .. job[2], id)
        if job[3] then
            redis.call('ZREM', waiting_of(job[3]), id)
            release(job[3], id)
        end
    end
end
"""
)
