-- Moves due jobs from the scheduled registries to the queues. Then claims jobs: of held keys, as many as each may have,
-- and from the queues in their order. A job that is on a queue twice is claimed once.
-- ARGV: most jobs, now in seconds, now in RQ's format, end of the lease in seconds, execution id, worker name,
-- most jobs of one fairness group, JSON of the groups with a lower limit and that limit, queue names...
-- The fairness group of a job is its key, or else its queue.
-- Returns rows of {job id, queue name, data, key or "", timeout in seconds or "",
-- 1 when nothing is left of the job once it has run or 0, 1 when a worker has claimed it before or 0}.

if redis.call('EXISTS', 'rq:suspended') == 1 then return {} end
local wanted, now, text, lease, execution, worker = tonumber(ARGV[1]), tonumber(ARGV[2]), unpack(ARGV, 3, 6)
local most, rooms, breakers = tonumber(ARGV[7]), cjson.decode(ARGV[8]), {}
local taken, started, dependents = {}, {}, {}

local function room(key) return rooms[key] or most end

-- How many jobs the circuit breaker of a key lets through, and the time of the next check.
local function breaker(key)
    if not breakers[key] then
        local state = redis.call('HMGET', 'datahog:breaker:' .. key, 'openUntil', 'probeUntil')
        local open, probe = tonumber(state[1] or 0), tonumber(state[2] or 0)
        local policy = state[1] and redis.call('HMGET', 'datahog:policy:' .. key, 'openSeconds', 'probeSeconds') or {}
        -- A time too far ahead was written before the clock was set back.
        if open > now + tonumber(policy[1] or 86400) + 1 then open = now end
        if probe > now + tonumber(policy[2] or 60) + 1 then probe = now end
        if not state[1] then breakers[key] = {math.huge, now}
        elseif open > now then breakers[key] = {0, open}
        elseif probe > now then breakers[key] = {0, math.min(probe, now + 1)}
        else breakers[key] = {1, now + 1} end
    end
    return unpack(breakers[key])
end

-- A job in one of these states has its place elsewhere, not in the registry where it was found.
local placed = {queued = true, rate_limited = true, started = true}

local function look(id)
    return read(id, 'data', 'status', 'origin', 'rate_limit_key', 'timeout', 'result_ttl', 'success_callback_name',
        'webhooks', 'repeats_left', 'group_id', 'begun_before', 'ttl')
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
    rooms[key or name] = room(key or name) - 1
    if not key then return end
    if breaker(key) == 1 then
        local probe = now + tonumber(redis.call('HGET', 'datahog:policy:' .. key, 'probeSeconds') or 60)
        redis.call('HSET', 'datahog:breaker:' .. key, 'probeUntil', probe)
        breakers[key] = {0, now + 1}
    end
end

-- RQ writes a limit when a job is queued, and deletes it when no job is queued, started or waiting.
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
        local job = read(due[j], 'data', 'rate_limit_key', 'rate_limit_concurrency', 'status')
        if job[3] then know(job[2], job[3]) end
        if job[1] and not placed[job[4]] then admit(due[j], ARGV[i], job[2], due[j + 1]) end
    end
end

local held = redis.call('ZRANGEBYSCORE', 'datahog:held', '-inf', now, 'LIMIT', 0, 1000)
local share = math.max(1, math.floor(wanted / (#held + 1)))
for _, key in ipairs(held) do
    if #taken >= wanted then break end
    local let, again = breaker(key)
    local count = math.min(share, wanted - #taken, room(key), let, free_permits(key))
    local popped = count > 0 and redis.call('ZPOPMIN', waiting_of(key), count) or {}
    for j = 1, #popped, 2 do
        local job = look(popped[j])
        if job[2] == 'rate_limited' then
            redis.call('ZADD', allowed_of(key), popped[j + 1], popped[j])
            start(popped[j], job)
        end
    end
    -- ZREM comes first: a full Redis lets a script write only after a command that needs no memory.
    redis.call('ZREM', 'datahog:held', key)
    if redis.call('ZCARD', waiting_of(key)) > 0 then redis.call('ZADD', 'datahog:held', again, key) end
end

for i = 9, #ARGV do
    local looked = 0
    -- Jobs without a key leave some of the worker's slots to the queues behind theirs.
    local function more() return math.min(wanted - #taken, i < #ARGV and room(ARGV[i]) or wanted) end
    while more() > 0 and looked < 1000 do
        local ids = redis.call('LPOP', 'rq:queue:' .. ARGV[i], more())
        if not ids then break end
        looked = looked + #ids
        for _, id in ipairs(ids) do
            local job = look(id)
            -- RECOVER looks for the lease under the queue where the job was found, whatever its origin.
            job[3] = ARGV[i]
            if job[1] and (job[2] == 'queued' or not job[2]) then
                local key, let, again = job[4], 1, now
                if key then let, again = breaker(key) end
                if not key then start(id, job)
                elseif not redis.call('ZSCORE', allowed_of(key), id) then admit(id, ARGV[i], key, now)
                elseif let < 1 or room(key) < 1 then hold_back(id, key, again)
                else start(id, job) end
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
