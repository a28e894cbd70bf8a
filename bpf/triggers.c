/*
 * What lets a flight recorder write: TRIGGER_CALLS(c), TRIGGER_SOCKETS(e) and TRIGGER_EXITS(x) are C that
 * stratokit/filters/kernel.py makes of `record --trigger`. Events that meet a test are counted, and the recorder looks at the
 * counts when it drains.
 */

BPF_PERCPU_ARRAY(trigger_hits, u64, TRIGGERS);

static __always_inline void trigger_hit(int which)
{
	u64 *hits = trigger_hits.lookup(&which);

	if (hits)
		__sync_fetch_and_add(hits, 1);
}

struct exit_facts {
	u64 comm[2];
	u32 pid, parent_pid, code; /* as a shell shows it: 128 and the signal for one that was killed */
};
