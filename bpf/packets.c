/* Packets at the IP layer, out of and in to the sockets of a cgroup. */

#define DIRECTION_IN 1
#define DIRECTION_OUT 2

#ifdef QUICK
/*
 * A TCP segment between two local sockets passes here twice, out and in, in one buffer, and most of a busy host's segments are
 * such. Its payload is recorded on its way out; on its way in only the headers are, with the time of the record that has the
 * payload, and the conversion puts it in again. So it must be certain that this record is there: it is noted here once it is
 * in the ring, under a number of buffer and segment. A note that another one replaced, or two that were mixed by processors that
 * wrote at once, agree with no segment: its payload is then recorded a second time.
 */
#define SENT 4096
#define SENT_NS 33554432 /* so long the conversion looks for it */
#define SEGMENT_LEAST 128 /* shorter ones would gain nothing */

struct sent {
	u64 check, ts_ns;
};
BPF_ARRAY(sent, struct sent, SENT);

#define MIX_IN(number, bytes) ((number) = ((number) ^ *(u64 *)(bytes)) * MIX, (number) ^= (number) >> 32)

/*
 * A number of the segment in its buffer, zero where the packet is none; `headers` is their length. IP options and extension headers are
 * not looked through. Headers may be rewritten in the buffer (addresses, ports, congestion marks): of those only time to live and
 * checksums are left out, so a segment that became another one has another number.
 */
static __always_inline u64 segment_number(struct __sk_buff *skb, u64 *headers)
{
	u8 *ip = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *tcp;
	u64 number;

	if (ip + 40 > end)
		return 0;
	/* As the first member of struct timespec64, which is a number: newer verifiers forbid to calculate with a pointer. */
	LOAD_MEMBER(u64, number, CAST_KERNEL((u64)skb, sk_buff) + OFF_sk_buff_head, timespec64, 0);
	number = (number ^ skb->len) * MIX;
	MIX_IN(number, ip);
	if (ip[0] == 0x45) {
		if (ip[9] != 6)
			return 0;
		MIX_IN(number, ip + 12); /* both addresses */
		tcp = ip + 20;
		*headers = 20;
	} else {
		if (ip[0] >> 4 != 6 || ip[6] != 6 || ip + 60 > end)
			return 0;
		MIX_IN(number, ip + 8);
		MIX_IN(number, ip + 16);
		MIX_IN(number, ip + 24);
		MIX_IN(number, ip + 32);
		tcp = ip + 40;
		*headers = 40;
	}
	*headers += (tcp[12] >> 4) * 4;
	MIX_IN(number, tcp);	 /* ports, sequence */
	MIX_IN(number, tcp + 8); /* acknowledgement, flags, window */
	return number;
}

static __always_inline struct sent *sent_place(u64 number)
{
	u32 index = number >> 52;

	return number ? sent.lookup(&index) : NULL;
}

/* Recorded at `now`, or not (0). */
static __always_inline void note_sent(u64 number, u64 now)
{
	struct sent *place = sent_place(number);

	if (!place)
		return;
	*(volatile u64 *)&place->ts_ns = now;
	*(volatile u64 *)&place->check = number ^ now * MIX;
}

/* When the segment was recorded on its way out, zero where it was not. */
static __always_inline u64 when_sent(u64 number, u64 now)
{
	struct sent *place = sent_place(number);
	u64 ts_ns;

	if (!place)
		return 0;
	ts_ns = *(volatile u64 *)&place->ts_ns;
	if (*(volatile u64 *)&place->check != (number ^ ts_ns * MIX) || now - ts_ns > SENT_NS)
		return 0;
	return ts_ns;
}
#endif

/* Whose socket it is. */
static __always_inline void describe_socket(struct packet_event *event, struct __sk_buff *skb)
{
#ifdef QUICK
	u64 sk, cookie, group, node, id;

	LOAD_MEMBER(u64, sk, (u64)skb, sk_buff, OFF_sk_buff_sk);
	cookie = cookie_of(sk);
	LOAD_MEMBER(u64, group, sk, sock, OFF_sock_sk_cgrp_data_cgroup);
	LOAD_MEMBER(u64, node, group, cgroup, OFF_cgroup_kn);
	LOAD_MEMBER(u64, id, node, kernfs_node, OFF_kernfs_node_id);
	event->socket_cookie = cookie ? cookie : bpf_get_socket_cookie(skb);
	event->cgroup_id = id;
#else
	event->socket_cookie = bpf_get_socket_cookie(skb);
	event->cgroup_id = bpf_skb_cgroup_id(skb);
#endif
}

static __always_inline void describe(struct packet_event *event, struct __sk_buff *skb, u64 now, u8 direction, u32 bytes,
				     u64 sent_ns)
{
	FILL_HEADER(event, EVENT_PACKET, now, 0);
	describe_socket(event, skb);
	event->ifindex = skb->ifindex;
	event->orig_len = skb->len;
	event->cap_len = bytes;
	event->direction = direction;
	event->packet_type = skb->pkt_type;
	event->gso_segments = skb->gso_segs;
	event->sent_ns = sent_ns;
}

#define PACKET_BYTES 65536
#define PACKET_SLOTS 4

/*
 * ringbuf_output wants the record in one piece, and a packet does not fit on the stack. A program here may be preempted
 * by another task or a softirq of the same processor that runs it too, so each takes a free slot of its processor.
 */
struct packet_slot {
	u64 busy;
	struct packet_event event;
	u8 data[PACKET_BYTES];
};
BPF_ARRAY(packet_slots, struct packet_slot, PROCESSORS * PACKET_SLOTS);

static __always_inline struct packet_slot *take_slot(void)
{
	u32 first = bpf_get_smp_processor_id() * PACKET_SLOTS;

#pragma unroll
	for (u32 i = 0; i < PACKET_SLOTS; i++) {
		u32 index = first + i;
		struct packet_slot *slot = packet_slots.lookup(&index);

		if (!slot)
			return NULL;
		if (TAKE(&slot->busy))
			return slot;
		LEAVE(&slot->busy);
	}
	return NULL;
}

static __always_inline bool record_packet(struct __sk_buff *skb, u64 now, u8 direction, u64 bytes, u64 sent_ns)
{
	struct packet_slot *slot = take_slot();
	bool recorded = false;

	if (!slot) {
		count(COUNT_PACKET_NO_SCRATCH);
		return false;
	}
	describe(&slot->event, skb, now, direction, bytes, sent_ns);
	if (!WITHIN(bytes, SNAPLEN) || bpf_skb_load_bytes(skb, 0, slot->data, bytes))
		count(COUNT_PACKET_READ_FAILED);
	else
		recorded = submit(&slot->event, sizeof(slot->event) + bytes, COUNT_RECORDED_PACKET,
				  COUNT_PACKET_NO_SPACE);
	LEAVE(&slot->busy);
	return recorded;
}

static __always_inline int packet(struct __sk_buff *skb, u8 direction)
{
	u64 now = bpf_ktime_get_ns(), bytes = skb->len, sent_ns = 0, number = 0, headers = 0;
	bool recorded;

#ifdef SCOPE_SOCKETS
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk || !socket_in_scope(sk, bpf_get_socket_cookie(skb)))
		return 1;
#endif
#ifdef PACKET_TEST
	if (!packet_wanted(skb, direction))
		return 1;
#endif
	if (is_shed(SHED_PACKETS)) {
		count(COUNT_PACKET_SHED);
		return 1;
	}
	if (bytes > SNAPLEN) {
		bytes = SNAPLEN;
		count(COUNT_PACKET_CUT);
	}
	if (bytes > HEADERS_BYTES && is_shed(SHED_PAYLOAD)) {
		bytes = HEADERS_BYTES;
		count(COUNT_PACKET_PAYLOAD_SHED);
	}
#ifdef QUICK
	if (bytes > SEGMENT_LEAST) {
		number = segment_number(skb, &headers);
		if (direction == DIRECTION_IN)
			sent_ns = when_sent(number, now);
		if (sent_ns)
			bytes = headers;
	}
#endif
	if (bytes > HEADERS_BYTES)
		add_bytes(SEEN_PAYLOAD, bytes - HEADERS_BYTES);
	recorded = record_packet(skb, now, direction, bytes, sent_ns);
#ifdef QUICK
	if (direction == DIRECTION_OUT)
		note_sent(number, recorded ? now : 0);
#endif
	return 1;
}

static __always_inline int leaves(struct __sk_buff *skb)
{
	note_user(skb);
	return packet(skb, DIRECTION_OUT);
}

MEASURED(packet_out, COST_PACKETS, struct __sk_buff, leaves(ctx))
MEASURED(packet_in, COST_PACKETS, struct __sk_buff, packet(ctx, DIRECTION_IN))
