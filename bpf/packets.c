/* Packets at the IP layer, out of and in to the sockets of a cgroup. */

#define PACKET_BYTES 65536
#define PACKET_SLOTS 4
#define DIRECTION_IN 1
#define DIRECTION_OUT 2

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

static __always_inline int packet(struct __sk_buff *skb, u8 direction)
{
	u64 now = bpf_ktime_get_ns();
	struct packet_slot *slot;
	u64 bytes = skb->len;

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
	slot = take_slot();
	if (!slot) {
		count(COUNT_PACKET_NO_SCRATCH);
		return 1;
	}
	FILL_HEADER(&slot->event, EVENT_PACKET, now, 0);
	slot->event.socket_cookie = bpf_get_socket_cookie(skb);
	slot->event.cgroup_id = bpf_skb_cgroup_id(skb);
	slot->event.ifindex = skb->ifindex;
	slot->event.orig_len = bytes;
	slot->event.direction = direction;
	slot->event.packet_type = skb->pkt_type;
	slot->event.gso_segments = skb->gso_segs;
	if (bytes > SNAPLEN) {
		bytes = SNAPLEN;
		count(COUNT_PACKET_CUT);
	}
	if (bytes > HEADERS_BYTES) {
		if (is_shed(SHED_PAYLOAD)) {
			bytes = HEADERS_BYTES;
			count(COUNT_PACKET_PAYLOAD_SHED);
		} else {
			add_bytes(SEEN_PAYLOAD, bytes - HEADERS_BYTES);
		}
	}
	slot->event.cap_len = bytes;
	if (!WITHIN(bytes, SNAPLEN) || bpf_skb_load_bytes(skb, 0, slot->data, bytes))
		count(COUNT_PACKET_READ_FAILED);
	else
		submit(&slot->event, sizeof(slot->event) + bytes, COUNT_RECORDED_PACKET,
		       COUNT_PACKET_NO_SPACE);
	LEAVE(&slot->busy);
	return 1;
}

int packet_out(struct __sk_buff *skb)
{
	note_user(skb);
	return packet(skb, DIRECTION_OUT);
}

int packet_in(struct __sk_buff *skb)
{
	return packet(skb, DIRECTION_IN);
}
