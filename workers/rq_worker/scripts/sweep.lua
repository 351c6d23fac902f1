-- Takes the permits of one provider from jobs that have no right to them, and gives the free ones to waiting jobs.
-- A job that holds a permit, and is neither on its queue nor with a worker, goes back to the front of its queue.
-- ARGV: key, queue names...
-- Returns how many permits it took, and how many jobs it put back.

local key, taken, put_back, holders = ARGV[1], 0, 0, nil

-- A job that was deleted or cancelled by RQ's tools may still run. Only the leases show it.
local function runs(id)
    if not holders then
        holders = {}
        for i = 2, #ARGV do
            for _, member in ipairs(redis.call('ZRANGE', 'rq:wip:' .. ARGV[i], 0, -1)) do
                holders[string.match(member, '^(.*):') or ''] = true
            end
        end
    end
    return holders[id]
end

for _, id in ipairs(redis.call('ZRANGE', allowed_of(key), 0, -1)) do
    local status, name, own_key, execution, turn =
        unpack(read(id, 'status', 'origin', 'rate_limit_key', 'execution', 'turn'))
    if own_key ~= key or not name or status ~= 'queued' and status ~= 'started' then
        if not runs(id) then
            redis.call('ZREM', allowed_of(key), id)
            taken = taken + 1
        end
    elseif status == 'queued' and not is_queued(id, name, turn) then
        queue_first(id, name)
        put_back = put_back + 1
    elseif status == 'started' and not is_leased(id, name, execution) then
        redis.call('HSET', 'rq:job:' .. id, 'begun_before', 1)
        queue_first(id, name)
        put_back = put_back + 1
    end
end
promote(key)
return {taken, put_back}
