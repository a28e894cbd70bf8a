/*
 * Packets that the kernel dropped, and why. The tracepoint also sees what is no packet of a network (messages between UNIX sockets,
 * netlink): buffers with neither a protocol nor an internet socket. What was used up is not seen: the kernel has another
 * tracepoint for that.
 */

#define DROP_BYTES 128 /* IP and TCP headers with their options take at most 120 */
#define DROP_PLACES 4096
/* In about a second (2^30 ns) and on one processor: a flood that is dropped shall not cost the host a second time. */
#define DROPS_A_SPAN 20000
#define SPAN_BITS 30

struct drop_record {
	struct drop_event event;
	u8 data[DROP_BYTES];
};
BPF_HASH(drop_places, u64, u64, DROP_PLACES); /* how many were dropped there */

struct drop_rate {
	u64 span, taken;
};
BPF_PERCPU_ARRAY(drop_rates, struct drop_rate, 1);

static __always_inline bool too_many(u64 now)
{
	int zero = 0;
	struct drop_rate *rate = drop_rates.lookup(&zero);

	if (!rate)
		return false;
	if (rate->span != now >> SPAN_BITS) {
		rate->span = now >> SPAN_BITS;
		rate->taken = 0;
	}
	return rate->taken++ >= DROPS_A_SPAN;
}

static __always_inline s32 drop_stack(struct bpf_raw_tracepoint_args *ctx, u64 place)
{
	u64 first = 1, *before = drop_places.lookup(&place), number = 0;

	if (before) {
		/* Read by itself: newer compilers return a sum only for kernels that have that. */
		number = *(volatile u64 *)before;
		__sync_fetch_and_add(before, 1);
	} else {
		drop_places.update(&place, &first);
	}
	return takes_stack(number) ? kernel_stacks.get_stackid(ctx, 0) : -1;
}

/* The namespace of a device, zero where `device` is not one: queues keep other things in that place of a buffer. */
static __always_inline u64 device_net(u64 device)
{
	u64 net = 0;

	if (!device || !READ_KERNEL(net, device, OFF_net_device_nd_net))
		return 0;
	return net;
}

static __always_inline void drop_owner(u64 skb, u64 sk, struct drop_event *event)
{
	u64 net = 0, device = 0, at = 0;

	if (sk) {
		READ_KERNEL(event->socket_cookie, sk, OFF_sock___sk_common + OFF_sock_common_skc_cookie);
		READ_KERNEL(net, sk, OFF_sock___sk_common + OFF_sock_common_skc_net);
	}
	READ_KERNEL(event->ifindex, skb, OFF_sk_buff_skb_iif);
	READ_KERNEL(device, skb, OFF_sk_buff_dev);
	at = device_net(device);
	if (at && (!net || at == net)) {
		net = at;
		READ_KERNEL(event->ifindex, device, OFF_net_device_ifindex);
	}
	if (net)
		READ_KERNEL(event->netns_cookie, net, OFF_net_net_cookie);
}

/* Where the headers of `packet` end, whose first bytes are in `ip`: what it carried is not recorded. */
static __always_inline u32 header_end(u8 *ip, u64 packet, u32 room)
{
	u32 at = ip[0] >> 4 == 6 ? 40 : (ip[0] & 15) * 4;
	u8 proto = ip[0] >> 4 == 6 ? ip[6] : ip[9], words = 0;

	if (ip[0] >> 4 != 4 && ip[0] >> 4 != 6)
		return room;
	if (proto == 17)
		return at + 8;
	if (proto == 6 && read_kernel(&words, 1, (void *)(packet + at + 12)) == 0)
		return at + (words >> 4) * 4;
	return room;
}

static __always_inline int dropped(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0], sk = 0, head = 0, data = 0, room;
	struct drop_record record = {};
	struct drop_event *event = &record.event;
	u32 tail = 0, bytes = 0;
	u16 network = 0, family = 0, protocol = 0;
	u64 now = bpf_ktime_get_ns();

#ifdef DROP_HAS_SOCKET
	sk = ctx->args[3];
#endif
	if (!sk)
		READ_KERNEL(sk, skb, OFF_sk_buff_sk);
	READ_KERNEL(protocol, skb, OFF_sk_buff_protocol);
	if (sk)
		READ_KERNEL(family, sk, OFF_sock___sk_common + OFF_sock_common_skc_family);
	if (!protocol && family != FAMILY_INET && family != FAMILY_INET6)
		return 0;
	drop_owner(skb, sk, event);
#ifdef SCOPED
	if (!event->socket_cookie || !scope_cookies.lookup(&event->socket_cookie))
		return 0;
#endif
	if (is_shed(SHED_DROPS)) {
		count(COUNT_DROP_SHED);
		return 0;
	}
	if (too_many(now)) {
		count(COUNT_DROP_TOO_MANY);
		return 0;
	}
	FILL_HEADER(event, EVENT_DROP, now, 0);
	event->protocol = bpf_ntohs(protocol);
	event->location = ctx->args[1];
#ifdef DROP_HAS_REASON
	event->reason = ctx->args[2];
#endif
	event->stack = drop_stack(ctx, event->location);
	if (!READ_KERNEL(head, skb, OFF_sk_buff_head) || !READ_KERNEL(data, skb, OFF_sk_buff_data) ||
	    !READ_KERNEL(bytes, skb, OFF_sk_buff_len) || !READ_KERNEL(tail, skb, OFF_sk_buff_tail) ||
	    !READ_KERNEL(network, skb, OFF_sk_buff_network_header))
		count(COUNT_DROP_READ_FAILED);
	/* Before a network header is known the packet is what is in the buffer. The end is an offset where pointers have 64 bits. */
	if (!network)
		network = data - head;
	event->orig_len = bytes + (u32)(data - head) - network;
	room = tail > network ? tail - network : 0;
	if (room > DROP_BYTES)
		room = DROP_BYTES;
	OPAQUE(room);
	if (room > DROP_BYTES)
		return 0;
	if (room && read_kernel(record.data, room, (void *)(head + network))) {
		count(COUNT_DROP_READ_FAILED);
		room = 0;
	}
	bytes = header_end(record.data, head + network, room);
	if (bytes < room)
		room = bytes;
	event->cap_len = room;
	OPAQUE(room);
	if (room > DROP_BYTES)
		return 0;
	submit(&record, sizeof(record.event) + room, COUNT_RECORDED_DROP, COUNT_DROP_NO_SPACE);
	return 0;
}

MEASURED(packet_dropped, COST_DROPS, struct bpf_raw_tracepoint_args, dropped(ctx))
