"""Sums the samples of `perf script` by thread and layer, to show where the time of a request goes.

    perf script -i perf.data -F comm,ip,sym | layers.py

Every sample counts once. In the kernel, any function on the stack can show which layer the work is for. In a
program, the innermost function decides, and functions inlined into it count as part of it.
"""

import collections
import re
import sys

# The beginning of a thread's name, and the name of its group. All other threads are one group, `other`.
THREADS = {
    "http": "HTTP workers",
    "owner": "owner",
    "database": "database connections",
    "postgres": "PostgreSQL",
    "load": "load generator",
    "wrk": "load generator",
    "swapper": "idle",
}

KERNEL = {
    "kernel: files and disk": r"^(ext4_|jbd2_|blk_|submit_bio|vfs_fsync|do_fsync|generic_perform_write|virtblk)",
    "kernel: TCP": r"^(tcp_|__tcp_|inet_|sock_|__sock_|__sys_send|__sys_recv|ip_|__ip_|net_rx_action|process_backlog)",
    "kernel: waiting for events": r"^(do_epoll_wait|ep_)",
    "kernel: waking and resting threads": r"^(do_futex|futex_|eventfd_|do_nanosleep|hrtimer_nanosleep)",
}

PROGRAM = {
    "JSON": r"serde_json",
    "HTTP by hyper": r"hyper|httparse|http::|http_body|h2::",
    "runtime by tokio": r"tokio|mio::|futures_util",
    "journal and state": r"widgets_engine|hashbrown|crc32",
    "rules": r"widgets_registry",
    "mailbox": r"widgets_mailbox",
    "PostgreSQL client": r"widgets_postgres|postgres_protocol|postgres_types",
    "load generator": r"widgets_load",
    "API": r"widgets_server",
    "memory": r"malloc|calloc|^_?_?(int_)?c?free|^_int_|^__mem|^mem(cpy|cmp|set|move)|bytes::|alloc::|drop_in_place",
}


def layer(stack):
    """Returns the layer of a stack: pairs of a function and whether it is in the kernel, from the innermost outwards."""
    innermost, in_kernel = stack[0]
    if in_kernel:
        for name, pattern in KERNEL.items():
            if any(re.search(pattern, function) for function, _ in stack):
                return name
        return "kernel: other"
    for name, pattern in PROGRAM.items():
        if re.search(pattern, innermost):
            return name
    return "other"


def samples(lines):
    """Yields the thread and the stack of each sample."""
    thread, stack = None, []
    for line in [*lines, ""]:
        if not line.strip():
            if stack:
                yield thread, stack
            stack = []
        elif line[0].isspace():
            address, _, function = line.strip().partition(" ")
            # The kernel has the upper half of the address space.
            stack.append((function.strip(), address.startswith("ffff")))
        else:
            thread = line.strip()


def main():
    counts = collections.defaultdict(collections.Counter)
    for thread, stack in samples(sys.stdin):
        known = (group for start, group in THREADS.items() if thread.startswith(start))
        group = next(known, "other")
        counts[group]["" if group == "idle" else layer(stack)] += 1
    total = sum(layers.total() for layers in counts.values())
    if not total:
        sys.exit("layers.py: no samples")
    print("| threads | layer | of all processor time |")
    print("|---|---|---|")
    for group, layers in sorted(counts.items(), key=lambda item: -item[1].total()):
        print(f"| {group} | all | {layers.total() / total:.1%} |")
        for name, count in layers.most_common():
            if name and count / total >= 0.002:
                print(f"| | {name} | {count / total:.1%} |")


main()
