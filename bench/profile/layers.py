"""Sums the samples of `perf script` by thread and layer: what a request's time goes to.

    perf script -i perf.data -F comm,ip,sym | layers.py

Every sample counts once, for the first line of LAYERS that names a function of its stack: the
innermost function where that is enough, any function where the kernel does something on somebody's behalf.
"""

import collections
import re
import sys

# Of a thread's name so much tells what it does; others are one group.
THREADS = {
    "http": "HTTP workers",
    "owner": "owner",
    "database": "database connections",
    "postgres": "PostgreSQL",
    "load": "load generator",
    "swapper": "idle",
}

# (layer, whether any function of the stack counts or the innermost only, pattern)
LAYERS = [
    ("kernel: journal and files", True, r"^(ext4_|jbd2_|blk_|submit_bio|vfs_fsync|do_fsync|generic_perform_write|virtblk|iomap_)"),
    ("kernel: TCP", True, r"^(tcp_|__tcp_|inet_|sock_|__sock_|__sys_send|__sys_recv|ip_|__ip_|net_rx_action|process_backlog|unix_stream)"),
    ("kernel: waiting for events", True, r"^(do_epoll_wait|ep_|__x64_sys_epoll)"),
    ("kernel: waking and resting threads", True, r"^(futex_|do_futex|__x64_sys_futex|eventfd_|hrtimer_nanosleep)"),
    ("kernel: other", False, r"^(\[k\])"),
    ("JSON", False, r"serde_json"),
    ("HTTP by hyper", False, r"(hyper|httparse|http::|http_body|h2::)"),
    ("runtime by tokio", False, r"(tokio|mio::|futures)"),
    ("journal and state", False, r"(widgets_engine|hashbrown|crc32)"),
    ("rules", False, r"widgets_registry"),
    ("mailbox", False, r"widgets_mailbox"),
    ("PostgreSQL client", False, r"(widgets_postgres|tokio_postgres|postgres_)"),
    ("load generator", False, r"widgets_load"),
    ("API", False, r"widgets_server"),
    ("memory", False, r"^(malloc|_int_malloc|free|_int_free|cfree|realloc|calloc|__mem|mem(cpy|cmp|set|move)|unlink_chunk|bytes::|alloc::|malloc_consolidate|.*drop_in_place)"),
]


def layer(stack):
    """The layer of a stack, whose innermost function comes first."""
    for name, anywhere, pattern in LAYERS:
        if name == "kernel: other":
            if stack[0][1]:
                return name
            continue
        if anywhere and not stack[0][1]:
            continue
        functions = stack if anywhere else stack[:1]
        if any(re.search(pattern, function) for function, _ in functions):
            return name
    return "other"


def samples(lines):
    """Each sample's thread and its stack of (function, whether it is the kernel's)."""
    thread, stack = None, []
    for line in lines:
        if not line.strip():
            if thread is not None and stack:
                yield thread, stack
            thread, stack = None, []
        elif line[0].isspace():
            address, _, function = line.strip().partition(" ")
            stack.append((function.strip(), address.startswith("ffff")))
        else:
            thread = line.strip()
    if thread is not None and stack:
        yield thread, stack


def main():
    counts = collections.Counter()
    for thread, stack in samples(sys.stdin):
        known = (group for start, group in THREADS.items() if thread.startswith(start))
        group = next(known, "other")
        counts[group, "" if group == "idle" else layer(stack)] += 1
    total = sum(counts.values())
    if not total:
        sys.exit("layers.py: no samples")
    groups = collections.Counter()
    for (group, _), count in counts.items():
        groups[group] += count
    print("| threads | layer | of all processor time |")
    print("|---|---|---|")
    for group, of_group in groups.most_common():
        print(f"| **{group}** | | **{of_group / total:.1%}** |")
        for (each, name), count in counts.most_common():
            if each == group and name and count / total >= 0.002:
                print(f"| | {name} | {count / total:.1%} |")


main()
