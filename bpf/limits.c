/*
 * What is left out for the sake of the host (`record --max-cpu` and its like). The recorder sets a bit of `limits_shed` for each
 * step that it takes, and marks system calls as SHED_CALL. What is left out is counted.
 */
#define SHED_PAYLOAD 1
#define SHED_DATA 2
#define SHED_PACKETS 4
#define SHED_PLAINTEXT 8
#define SHED_DROPS 16
#define SHED_CALL 2 /* of syscall_spec.wanted */

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
#else
#define HEADERS_BYTES 0
#define is_shed(what) false
#define add_bytes(kind, bytes) do { } while (0)
#define add_call(nr) do { } while (0)
#endif
