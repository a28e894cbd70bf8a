/*
 * Frames at network devices. The program is the filter of AF_PACKET sockets, so it sees what tcpdump sees, where tcpdump sees
 * it; it hands the frame over itself and lets nothing into the socket. It goes when the socket is closed, however that comes.
 */

/* Softirqs are off where frames are tapped, so hardly ever two at once on a processor. */
#define FRAME_SLOTS 2
#define FRAME_OUTGOING 4 /* PACKET_OUTGOING of include/uapi/linux/if_packet.h */
#define FRAME_IN 1
#define FRAME_OUT 2
#define DEVICE_ETHERNET 1 /* ARPHRD_ of include/uapi/linux/if_arp.h */
#define DEVICE_LOOPBACK 772
#define MAC_BYTES 12 /* of both addresses: behind them a VLAN tag stands */
#define TAG_BYTES 4

struct frame_slot {
	u64 busy;
	struct frame_event event;
	u8 data[SNAPLEN + 7];
};
BPF_ARRAY(frame_slots, struct frame_slot, PROCESSORS *FRAME_SLOTS);

static __always_inline struct frame_slot *take_frame_slot(void)
{
	u32 first = bpf_get_smp_processor_id() * FRAME_SLOTS;

#pragma unroll
	for (u32 i = 0; i < FRAME_SLOTS; i++) {
		u32 index = first + i;
		struct frame_slot *slot = frame_slots.lookup(&index);

		if (!slot)
			return NULL;
		if (TAKE(&slot->busy))
			return slot;
		LEAVE(&slot->busy);
	}
	return NULL;
}

/* What of the frame the context does not tell. */
static __always_inline void read_device(struct __sk_buff *skb, struct frame_event *event)
{
	u64 device = 0, net = 0, head = 0, data = 0;
	u16 network = 0;

	if (!READ_KERNEL(device, skb, OFF_sk_buff_dev) || !device)
		return;
	READ_KERNEL(event->device_type, device, OFF_net_device_type);
	if (READ_KERNEL(net, device, OFF_net_device_nd_net) && net)
		READ_KERNEL(event->netns_cookie, net, OFF_net_net_cookie);
	if (READ_KERNEL(head, skb, OFF_sk_buff_head) && READ_KERNEL(data, skb, OFF_sk_buff_data) &&
	    READ_KERNEL(network, skb, OFF_sk_buff_network_header) && head + network >= data &&
	    head + network - data < 65535)
		event->network_offset = head + network - data;
}

/* The frame's first bytes, with the VLAN tag that the kernel has taken out of it where it was (IEEE 802.1Q). */
static __always_inline bool copy_frame(struct __sk_buff *skb, u8 *data, u64 bytes, bool tagged)
{
	u64 rest;

	if (!WITHIN(bytes, SNAPLEN))
		return false;
	if (!tagged)
		return bpf_skb_load_bytes(skb, 0, data, bytes) == 0;
	if (bytes <= MAC_BYTES + TAG_BYTES || bpf_skb_load_bytes(skb, 0, data, MAC_BYTES))
		return false;
	*(u16 *)&data[MAC_BYTES] = skb->vlan_proto;
	*(u16 *)&data[MAC_BYTES + 2] = bpf_htons(skb->vlan_tci);
	rest = bytes - MAC_BYTES - TAG_BYTES;
	if (!WITHIN(rest, SNAPLEN - MAC_BYTES - TAG_BYTES))
		return false;
	return bpf_skb_load_bytes(skb, MAC_BYTES, data + MAC_BYTES + TAG_BYTES, rest) == 0;
}

static __always_inline int frame(struct __sk_buff *skb)
{
	u64 now = bpf_ktime_get_ns();
	struct frame_slot *slot;
	struct frame_event event = {};
	bool tagged;
	u64 bytes, headers;

	FILL_HEADER(&event, EVENT_FRAME, now, 0);
	read_device(skb, &event);
	tagged = skb->vlan_present && event.device_type == DEVICE_ETHERNET;
	event.ifindex = skb->ifindex;
	event.packet_type = skb->pkt_type;
	event.direction = event.packet_type == FRAME_OUTGOING ? FRAME_OUT : FRAME_IN;
	event.gso_segments = skb->gso_segs;
	event.protocol = bpf_ntohs(skb->protocol);
	bytes = skb->len;
	if (tagged) {
		bytes += TAG_BYTES;
		event.network_offset += TAG_BYTES;
	}
	event.orig_len = bytes;
#ifdef PACKET_TEST
	bool ethernet = event.device_type == DEVICE_ETHERNET || event.device_type == DEVICE_LOOPBACK;

	if (!frame_wanted(skb, ethernet ? 14 : event.network_offset, event.direction, bytes))
		return 0;
#endif
	if (is_shed(SHED_PACKETS)) {
		count(COUNT_PACKET_SHED);
		return 0;
	}
	slot = take_frame_slot();
	if (!slot) {
		count(COUNT_FRAME_NO_SCRATCH);
		return 0;
	}
	if (bytes > SNAPLEN) {
		bytes = SNAPLEN;
		count(COUNT_FRAME_CUT);
	}
	headers = HEADERS_BYTES + event.network_offset;
	if (bytes > headers) {
		if (is_shed(SHED_PAYLOAD)) {
			bytes = headers;
			count(COUNT_PACKET_PAYLOAD_SHED);
		} else {
			add_bytes(SEEN_PAYLOAD, bytes - headers);
		}
	}
	event.cap_len = bytes;
	slot->event = event;
	if (copy_frame(skb, slot->data, bytes, tagged))
		submit(&slot->event, sizeof(slot->event) + bytes, COUNT_RECORDED_FRAME, COUNT_FRAME_NO_SPACE);
	else
		count(COUNT_FRAME_READ_FAILED);
	LEAVE(&slot->busy);
	return 0;
}

MEASURED(device_frame, COST_PACKETS, struct __sk_buff, frame(ctx))
