/*
 * What the recording costs, and what is left out for the sake of the host (`record --max-cpu` and its like). The recorder sets a bit
 * of `limits_shed` for each step that it takes, and marks system calls as SHED_CALL. What is left out is counted, but for system calls
 * whose tracepoints have been detached (SHED_CALLS).
 */
#define SHED_PAYLOAD 1
#define SHED_DATA 2
#define SHED_PACKETS 4
#define SHED_PLAINTEXT 8
#define SHED_DROPS 16
#define SHED_CALLS 32
#define SHED_CALL 2 /* of syscall_spec.wanted */

/* Programs that cost much are told apart by these. */
#define COST_CALLS 0
#define COST_PACKETS 1
#define COST_DROPS 2
#define COST_TLS 3
#define COST_TLS_CALLS 4
#define COST_GLANCE 5
#define COST_KINDS 6

#ifdef LIMITED
#define HEADERS_BYTES 128 /* kept of a packet without payload: IP and TCP headers with their options take at most 120 */
BPF_ARRAY(limits_shed, u32, 1);
/* How often each call was recorded, which tells the busy ones; and bytes of each of these kinds. */
#define SEEN_PAYLOAD 0
#define SEEN_DATA 1
#define SEEN_PLAINTEXT 2
struct limits_seen {
	u64 calls[512];
	u64 bytes[4];
};
BPF_PERCPU_ARRAY(limits_seen, struct limits_seen, 1);

/*
 * How often programs of a kind ran, and how long those runs took of which it was measured: one in MEASURE_EVERY. The kernel could
 * measure all (BPF_ENABLE_STATS), but only for a privileged user, and then those of everybody. A run that took longer than
 * LONGEST_RUN_NS was interrupted.
 */
#define MEASURE_EVERY 16
#define LONGEST_RUN_NS 100000
struct limits_cost {
	u64 runs;
	u64 measured_ns;
};
BPF_PERCPU_ARRAY(limits_costs, struct limits_cost, COST_KINDS);

static __always_inline bool is_shed(u32 what)
{
	int zero = 0;
	u32 *bits = limits_shed.lookup(&zero);

	return bits && *bits & what;
}

static __always_inline void add_bytes(u32 kind, u64 bytes)
{
	int zero = 0;
	struct limits_seen *seen = limits_seen.lookup(&zero);

	if (seen)
		__sync_fetch_and_add(&seen->bytes[kind & 3], bytes);
}

static __always_inline void add_call(u32 nr)
{
	int zero = 0;
	struct limits_seen *seen = limits_seen.lookup(&zero);

	if (seen)
		__sync_fetch_and_add(&seen->calls[nr & 511], 1);
}

/*
 * System calls are not watched all the time: a thread that entered its call before `since_ns` may have made others since. `number`
 * counts spans of time in which they are watched or not.
 */
struct calls_span {
	u64 number;
	u64 since_ns;
};
BPF_ARRAY(calls_span, struct calls_span, 1);

static __always_inline struct calls_span this_span(void)
{
	int zero = 0;
	struct calls_span first = {.number = 1}, *span = calls_span.lookup(&zero);

	return span ? *span : first;
}

static __always_inline struct limits_cost *run_begins(u32 kind, u64 *began)
{
	struct limits_cost *cost = limits_costs.lookup(&kind);

	if (cost && ++cost->runs % MEASURE_EVERY == 0)
		*began = bpf_ktime_get_ns();
	return cost;
}

static __always_inline void run_ends(struct limits_cost *cost, u64 began)
{
	u64 took;

	if (!cost || !began)
		return;
	took = bpf_ktime_get_ns() - began;
	cost->measured_ns += took < LONGEST_RUN_NS ? took : LONGEST_RUN_NS;
}

/* While system calls are left out it is attached for moments, to count how many there are. */
int call_glanced(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = COST_GLANCE;
	struct limits_cost *cost = limits_costs.lookup(&kind);

	if (cost)
		cost->runs++;
	return 0;
}

/* A program `name` that runs `inner` and tells what it costs. */
#define MEASURED(name, kind, context, inner)                                   \
	int name(context *ctx)                                                 \
	{                                                                      \
		u64 began = 0;                                                 \
		struct limits_cost *cost = run_begins(kind, &began);           \
		int result = inner;                                            \
                                                                               \
		run_ends(cost, began);                                         \
		return result;                                                 \
	}
#else
#define HEADERS_BYTES 0
#define is_shed(what) false
#define add_bytes(kind, bytes) do { } while (0)
#define add_call(nr) do { } while (0)
#define this_span() ((struct calls_span){.number = 1})
struct calls_span {
	u64 number;
	u64 since_ns;
};
#define MEASURED(name, kind, context, inner)                                   \
	int name(context *ctx)                                                 \
	{                                                                      \
		return inner;                                                  \
	}
#endif
