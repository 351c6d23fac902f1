-- Functions on jobs and on the permits of a provider's concurrency limit. The scripts that need them begin with them.
-- docs/queue.md says where a job of each state is, and when it holds a permit.

local function waiting_of(key) return 'rq:rl:' .. key .. ':rate_limited' end
local function allowed_of(key) return 'rq:rl:' .. key .. ':allowed' end
local function free_permits(key)
    return tonumber(redis.call('HGET', 'rq:rl:' .. key, 'concurrency') or 1) - redis.call('ZCARD', allowed_of(key))
end

-- An id that is not ASCII, or a key that is not a hash, is no job of RQ's. An error here would lose other jobs.
local function read(id, ...)
    local job = redis.pcall('HMGET', 'rq:job:' .. id, ...)
    if job.err or string.find(id, '[\128-\255]') then return {} end
    return job
end

-- Each push onto a queue has a number, its turn, by which a job is found without a walk through the list.
local function queue(id, name)
    redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'turn', redis.call('INCR', 'datahog:turns:' .. name))
    redis.call('RPUSH', 'rq:queue:' .. name, id)
end

local function queue_first(id, name)
    local first = redis.call('LINDEX', 'rq:queue:' .. name, 0)
    local turn = first and read(first, 'turn')[1] or redis.call('INCR', 'datahog:turns:' .. name)
    redis.call('HSET', 'rq:job:' .. id, 'status', 'queued', 'turn', turn)
    redis.call('LPUSH', 'rq:queue:' .. name, id)
end

local function is_queued(id, name, turn)
    local first = redis.call('LINDEX', 'rq:queue:' .. name, 0)
    if not first or first == id then return first end
    local first_turn = read(first, 'turn')[1]
    if turn and first_turn and tonumber(turn) >= tonumber(first_turn) then return true end
    -- RQ's own tools push without a turn, and a job that was dropped and put again is in the list twice.
    return redis.call('LPOS', 'rq:queue:' .. name, id)
end

-- Whether a worker holds the job: until it completes the job, or RECOVER finds that its lease is over.
local function is_leased(id, name, execution)
    if execution and redis.call('ZSCORE', 'rq:wip:' .. name, id .. ':' .. execution) then return true end
    -- RQ's own workers keep their executions in that registry, and write none into the job.
    return not execution and redis.call('ZCARD', 'rq:executions:' .. id) > 0
end

-- Moves the jobs that have waited longest onto their queues, as many as there are free permits.
local function promote(key)
    if redis.call('ZSCORE', 'datahog:held', key) then return end
    while free_permits(key) > 0 do
        local id, came = unpack(redis.call('ZPOPMIN', waiting_of(key)))
        if not id then return end
        local job = read(id, 'status', 'origin')
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

-- Moves a job that is due onto its queue. Without a permit, it first waits for one, behind the jobs that came earlier.
local function admit(id, name, key, came)
    if not key or redis.call('ZSCORE', allowed_of(key), id) then return queue(id, name) end
    redis.call('HSET', 'rq:job:' .. id, 'status', 'rate_limited')
    redis.call('ZADD', waiting_of(key), came, id)
    promote(key)
end
