/*
 * Loads the shared object as packetdrill does and drives all of its functions through the C interface.
 * Usage: drive LIBRARY. Exits with 0 if everything was as it should be.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/sockios.h>

struct stack {
	void *data;
	void (*free)(void *);
	int (*socket)(void *, int, int, int);
	int (*bind)(void *, int, const struct sockaddr *, socklen_t);
	int (*listen)(void *, int, int);
	int (*accept)(void *, int, struct sockaddr *, socklen_t *);
	int (*connect)(void *, int, const struct sockaddr *, socklen_t);
	ssize_t (*read)(void *, int, void *, size_t);
	ssize_t (*readv)(void *, int, const struct iovec *, int);
	ssize_t (*recv)(void *, int, void *, size_t, int);
	ssize_t (*recvfrom)(void *, int, void *, size_t, int, struct sockaddr *, socklen_t *);
	ssize_t (*recvmsg)(void *, int, struct msghdr *, int);
	ssize_t (*write)(void *, int, const void *, size_t);
	ssize_t (*writev)(void *, int, const struct iovec *, int);
	ssize_t (*send)(void *, int, const void *, size_t, int);
	ssize_t (*sendto)(void *, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	ssize_t (*sendmsg)(void *, int, const struct msghdr *, int);
	int (*fcntl)(void *, int, int, ...);
	int (*ioctl)(void *, int, unsigned long, ...);
	int (*close)(void *, int);
	int (*shutdown)(void *, int, int);
	int (*getsockopt)(void *, int, int, int, void *, socklen_t *);
	int (*setsockopt)(void *, int, int, int, const void *, socklen_t);
	int (*poll)(void *, struct pollfd *, nfds_t, int);
	int (*netdev_send)(void *, const void *, size_t);
	int (*netdev_receive)(void *, void *, size_t *, long long *);
	int (*usleep)(void *, useconds_t);
	int (*gettimeofday)(void *, struct timeval *, struct timezone *);
	int (*epoll_create)(void *, int);
	int (*epoll_ctl)(void *, int, int, int, struct epoll_event *);
	int (*epoll_wait)(void *, int, struct epoll_event *, int, int);
	int (*pipe)(void *, int[2]);
	int (*splice)(void *, int, loff_t *, int, loff_t *, size_t, unsigned int);
};

typedef void (*init_function)(const char *, struct stack *);

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s (errno %d, %s)\n", __FILE__, __LINE__, #condition, errno, \
				strerror(errno)); \
			exit(1); \
		} \
	} while (0)
/* The call fails with this errno. */
#define FAILS(call, why) CHECK((errno = 0, (call) == -1) && errno == (why))

enum { SYN = 2, ACK = 16, FIN = 1, RST = 4, PSH = 8, PORT = 8080, THEIR_PORT = 40000 };

static struct stack stack;
static struct sockaddr_in6 ours, theirs;

struct segment {
	unsigned char packet[65536];
	size_t len;
	long long at;
	unsigned flags, seq, ack, payload;
};

static unsigned short word(const unsigned char *p) { return p[0] << 8 | p[1]; }
static unsigned long_word(const unsigned char *p) { return (unsigned)word(p) << 16 | word(p + 2); }
static void put_word(unsigned char *p, unsigned v) { p[0] = v >> 8, p[1] = v; }
static void put_long(unsigned char *p, unsigned v) { put_word(p, v >> 16), put_word(p + 2, v); }

static unsigned short checksum(const unsigned char *packet, size_t len)
{
	unsigned long sum = (len - 40) + 6;
	for (size_t at = 8; at + 1 < len; at += 2)
		sum += word(packet + at);
	if (len % 2)
		sum += packet[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* A segment from the other side arrives. */
static void arrive(int our_port, unsigned flags, unsigned seq, unsigned ack, const char *payload)
{
	unsigned char packet[2048] = { 0x60 };
	size_t octets = strlen(payload), options = flags & SYN ? 4 : 0, len = 60 + options + octets;
	put_word(packet + 4, len - 40);
	packet[6] = 6, packet[7] = 64;
	memcpy(packet + 8, &theirs.sin6_addr, 16);
	memcpy(packet + 24, &ours.sin6_addr, 16);
	put_word(packet + 40, THEIR_PORT), put_word(packet + 42, our_port);
	put_long(packet + 44, seq), put_long(packet + 48, ack);
	packet[52] = (20 + options) / 4 << 4, packet[53] = flags;
	put_word(packet + 54, 60000);
	if (options)
		memcpy(packet + 60, "\x02\x04\x03\xe8", 4);
	memcpy(packet + 60 + options, payload, octets);
	put_word(packet + 56, checksum(packet, len));
	CHECK(stack.netdev_send(stack.data, packet, len) == 0);
}

/* The next segment that leaves. */
static struct segment leave(void)
{
	static struct segment s;
	s.len = sizeof(s.packet);
	CHECK(stack.netdev_receive(stack.data, s.packet, &s.len, &s.at) == 0);
	CHECK(s.len >= 60 && s.packet[0] >> 4 == 6 && s.packet[6] == 6);
	CHECK(checksum(s.packet, s.len) == 0);
	s.flags = s.packet[53], s.seq = long_word(s.packet + 44), s.ack = long_word(s.packet + 48);
	s.payload = s.len - 40 - (s.packet[52] >> 4) * 4;
	return s;
}

static long long now(void)
{
	struct timeval tv;
	CHECK(stack.gettimeofday(stack.data, &tv, NULL) == 0);
	return tv.tv_sec * 1000000LL + tv.tv_usec;
}

static int listening(void)
{
	int one = 1, fd = stack.socket(stack.data, AF_INET6, SOCK_STREAM, IPPROTO_TCP);
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(PORT) };
	CHECK(fd >= 0);
	CHECK(stack.setsockopt(stack.data, fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
	CHECK(stack.bind(stack.data, fd, (struct sockaddr *)&any, sizeof any) == 0);
	CHECK(stack.listen(stack.data, fd, 1) == 0);
	return fd;
}

/* A connection that the other side opened; its descriptor, and what we send next. */
static int accepted(int listener, unsigned *next)
{
	struct sockaddr_in6 from;
	socklen_t len = sizeof from;
	arrive(PORT, SYN, 0, 0, "");
	struct segment synack = leave();
	CHECK(synack.flags == (SYN | ACK) && synack.ack == 1);
	*next = synack.seq + 1;
	arrive(PORT, ACK, 1, *next, "");
	int fd = stack.accept(stack.data, listener, (struct sockaddr *)&from, &len);
	CHECK(fd >= 0 && len == sizeof from && from.sin6_port == htons(THEIR_PORT));
	CHECK(memcmp(&from.sin6_addr, &theirs.sin6_addr, 16) == 0);
	return fd;
}

static void test_time(void)
{
	long long before = now();
	CHECK(stack.usleep(stack.data, 3600000000U) == 0);
	long long after = now();
	CHECK(after - before >= 3600000000LL && after - before < 3600000100LL);
	/* Whoever spins on the clock sees it move. */
	for (int spins = 0; now() < after + 20; spins++)
		CHECK(spins < 100);
}

static void test_errors(void)
{
	int fd, value = 1, fds[2];
	socklen_t len = sizeof value;
	FAILS(stack.socket(stack.data, AF_INET, SOCK_STREAM, 0), EAFNOSUPPORT);
	FAILS(stack.socket(stack.data, AF_INET6, SOCK_DGRAM, 0), ESOCKTNOSUPPORT);
	FAILS(stack.close(stack.data, 77), EBADF);
	FAILS(stack.read(stack.data, 77, &value, 1), EBADF);
	CHECK((fd = stack.socket(stack.data, AF_INET6, SOCK_STREAM, 0)) >= 0);
	FAILS(stack.read(stack.data, fd, &value, 1), ENOTCONN);
	FAILS(stack.write(stack.data, fd, &value, 1), EPIPE);
	FAILS(stack.shutdown(stack.data, fd, SHUT_WR), ENOTCONN);
	FAILS(stack.accept(stack.data, fd, NULL, NULL), EINVAL);
	FAILS(stack.bind(stack.data, fd, NULL, sizeof ours), EFAULT);
	FAILS(stack.setsockopt(stack.data, fd, IPPROTO_TCP, 14 /* TCP_MD5SIG */, &value, len), ENOPROTOOPT);
	FAILS(stack.setsockopt(stack.data, fd, IPPROTO_TCP, 23 /* TCP_FASTOPEN */, &value, len), ENOPROTOOPT);
	FAILS(stack.setsockopt(stack.data, fd, SOL_SOCKET, 60 /* SO_ZEROCOPY */, &value, len), ENOPROTOOPT);
	FAILS(stack.setsockopt(stack.data, fd, IPPROTO_TCP, TCP_NODELAY, &value, 1), EINVAL);
	FAILS(stack.getsockopt(stack.data, fd, SOL_SOCKET, 9999, &value, &len), ENOPROTOOPT);
	FAILS(stack.send(stack.data, fd, &value, 1, MSG_FASTOPEN), EOPNOTSUPP);
	FAILS(stack.pipe(stack.data, fds), EOPNOTSUPP);
	FAILS(stack.splice(stack.data, fd, NULL, fd, NULL, 1, 0), EOPNOTSUPP);
	FAILS(stack.epoll_create(stack.data, 0), EINVAL);
	FAILS(stack.netdev_receive(stack.data, &value, NULL, NULL), EFAULT);
	CHECK(stack.netdev_send(stack.data, "no packet", 9) == 0);
	/* Nothing leaves a stack that has nothing to do. */
	size_t count = sizeof value;
	long long at;
	CHECK(stack.netdev_receive(stack.data, &value, &count, &at) == 0 && count == 0);
	CHECK(stack.close(stack.data, fd) == 0);
}

static void test_options(void)
{
	int fd = stack.socket(stack.data, AF_INET6, SOCK_STREAM, 0), value;
	const int ints[][3] = {
		{ SOL_SOCKET, SO_REUSEADDR, 1 },     { SOL_SOCKET, SO_KEEPALIVE, 1 },   { IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_CORK, 1 },        { IPPROTO_TCP, TCP_MAXSEG, 600 },  { IPPROTO_TCP, TCP_KEEPIDLE, 7 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 8 },   { IPPROTO_TCP, TCP_KEEPCNT, 9 },   { IPPROTO_TCP, TCP_SYNCNT, 3 },
		{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, 5000 }, { IPPROTO_IPV6, IPV6_V6ONLY, 1 },
		{ IPPROTO_IPV6, IPV6_MTU_DISCOVER, 2 },
	};
	for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
		socklen_t len = sizeof value;
		CHECK(stack.setsockopt(stack.data, fd, ints[i][0], ints[i][1], &ints[i][2], sizeof(int)) == 0);
		CHECK(stack.getsockopt(stack.data, fd, ints[i][0], ints[i][1], &value, &len) == 0);
		CHECK(value == ints[i][2] && len == sizeof value);
	}
	value = 50000;
	socklen_t len = sizeof value;
	CHECK(stack.setsockopt(stack.data, fd, SOL_SOCKET, SO_SNDBUF, &value, len) == 0);
	CHECK(stack.getsockopt(stack.data, fd, SOL_SOCKET, SO_SNDBUF, &value, &len) == 0 && value == 100000);
	struct linger linger = { 1, 5 }, got;
	len = sizeof got;
	CHECK(stack.setsockopt(stack.data, fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
	CHECK(stack.getsockopt(stack.data, fd, SOL_SOCKET, SO_LINGER, &got, &len) == 0);
	CHECK(len == sizeof got && got.l_onoff == 1 && got.l_linger == 5);
	char name[16];
	len = sizeof name;
	CHECK(stack.getsockopt(stack.data, fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0);
	CHECK(strcmp(name, "cubic") == 0);
	CHECK(stack.setsockopt(stack.data, fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
	CHECK(stack.getsockopt(stack.data, fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0);
	CHECK(strcmp(name, "reno") == 0);
	FAILS(stack.setsockopt(stack.data, fd, IPPROTO_TCP, TCP_CONGESTION, "vegas", 5), ENOENT);
	CHECK(stack.fcntl(stack.data, fd, F_GETFL) == O_RDWR);
	CHECK(stack.fcntl(stack.data, fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	CHECK(stack.fcntl(stack.data, fd, F_GETFL) == (O_RDWR | O_NONBLOCK));
	int zero = 0;
	CHECK(stack.ioctl(stack.data, fd, FIONBIO, &zero) == 0);
	CHECK(stack.fcntl(stack.data, fd, F_GETFL) == O_RDWR);
	FAILS(stack.ioctl(stack.data, fd, 0x1234UL, &zero), ENOTTY);
	CHECK(stack.close(stack.data, fd) == 0);
}

static void test_data(void)
{
	char a[3], b[100];
	struct iovec two[2] = { { a, sizeof a }, { b, sizeof b } };
	struct msghdr message = { .msg_iov = two, .msg_iovlen = 2 };
	struct sockaddr_in6 from;
	socklen_t from_len = sizeof from;
	unsigned ours_next;
	int listener = listening(), value;
	int fd = accepted(listener, &ours_next);

	arrive(PORT, ACK | PSH, 1, ours_next, "hello, world");
	CHECK(leave().ack == 13);
	CHECK(stack.ioctl(stack.data, fd, FIONREAD, &value) == 0 && value == 12);
	CHECK(stack.recv(stack.data, fd, b, sizeof b, MSG_PEEK) == 12 && memcmp(b, "hello, world", 12) == 0);
	CHECK(stack.readv(stack.data, fd, two, 2) == 12);
	CHECK(memcmp(a, "hel", 3) == 0 && memcmp(b, "lo, world", 9) == 0);
	FAILS(stack.recv(stack.data, fd, b, sizeof b, MSG_DONTWAIT), EAGAIN);
	arrive(PORT, ACK | PSH, 13, ours_next, "abcdef");
	leave();
	CHECK(stack.recvfrom(stack.data, fd, b, 2, 0, (struct sockaddr *)&from, &from_len) == 2 && from_len == 0);
	CHECK(stack.recvmsg(stack.data, fd, &message, 0) == 4 && memcmp(a, "cde", 3) == 0 && b[0] == 'f');

	struct iovec out[2] = { { "ab", 2 }, { "cde", 3 } };
	struct msghdr sent = { .msg_iov = out, .msg_iovlen = 2 };
	CHECK(stack.write(stack.data, fd, "0123456789", 10) == 10);
	struct segment s = leave();
	CHECK(s.payload == 10 && s.seq == ours_next && memcmp(s.packet + s.len - 10, "0123456789", 10) == 0);
	/* Nagle's algorithm lets these wait for the acknowledgement, and go as one. */
	CHECK(stack.writev(stack.data, fd, out, 2) == 5 && stack.send(stack.data, fd, "x", 1, 0) == 1);
	CHECK(stack.sendto(stack.data, fd, "y", 1, 0, NULL, 0) == 1 && stack.sendmsg(stack.data, fd, &sent, 0) == 5);
	CHECK(stack.ioctl(stack.data, fd, SIOCOUTQ, &value) == 0 && value == 22);
	arrive(PORT, ACK, 19, ours_next + 10, "");
	s = leave();
	CHECK(s.payload == 12 && memcmp(s.packet + s.len - 12, "abcdexyabcde", 12) == 0);
	arrive(PORT, ACK, 19, ours_next + 22, "");

	struct tcp_info info;
	socklen_t len = sizeof info;
	CHECK(stack.getsockopt(stack.data, fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	CHECK(len == sizeof info);
	CHECK(info.tcpi_state == TCP_ESTABLISHED && info.tcpi_unacked == 0 && info.tcpi_snd_cwnd == 10);
	CHECK(info.tcpi_snd_mss == 1000 && info.tcpi_pmtu == 1520);

	struct pollfd polled = { .fd = fd, .events = POLLIN | POLLOUT };
	CHECK(stack.poll(stack.data, &polled, 1, 0) == 1 && polled.revents == POLLOUT);
	polled.events = POLLIN;
	long long before = now();
	CHECK(stack.poll(stack.data, &polled, 1, 250) == 0 && polled.revents == 0);
	CHECK(now() - before >= 250000);

	arrive(PORT, ACK | FIN, 19, ours_next + 22, "");
	CHECK(leave().ack == 20);
	CHECK(stack.poll(stack.data, &polled, 1, 0) == 1 && polled.revents == POLLIN);
	CHECK(stack.read(stack.data, fd, b, sizeof b) == 0);
	CHECK(stack.shutdown(stack.data, fd, SHUT_WR) == 0);
	CHECK(leave().flags == (FIN | ACK));
	FAILS(stack.write(stack.data, fd, "z", 1), EPIPE);
	arrive(PORT, ACK, 20, ours_next + 23, "");
	CHECK(stack.close(stack.data, fd) == 0);
	CHECK(stack.close(stack.data, listener) == 0);
}

static void test_epoll(void)
{
	unsigned ours_next;
	char octet;
	int listener = listening(), epoll = stack.epoll_create(stack.data, 1);
	struct epoll_event wanted = { .events = EPOLLIN, .data.u64 = 0x1122334455667788 }, told[2];
	CHECK(epoll >= 0 && stack.epoll_ctl(stack.data, epoll, EPOLL_CTL_ADD, listener, &wanted) == 0);
	FAILS(stack.epoll_ctl(stack.data, epoll, EPOLL_CTL_ADD, listener, &wanted), EEXIST);
	CHECK(stack.epoll_wait(stack.data, epoll, told, 2, 0) == 0);
	arrive(PORT, SYN, 0, 0, "");
	struct segment synack = leave();
	ours_next = synack.seq + 1;
	arrive(PORT, ACK, 1, ours_next, "");
	CHECK(stack.epoll_wait(stack.data, epoll, told, 2, 0) == 1);
	CHECK(told[0].events == EPOLLIN && told[0].data.u64 == 0x1122334455667788);
	int fd = stack.accept(stack.data, listener, NULL, NULL);
	CHECK(fd >= 0 && stack.epoll_wait(stack.data, epoll, told, 2, 0) == 0);
	wanted.events = EPOLLIN | EPOLLET;
	CHECK(stack.epoll_ctl(stack.data, epoll, EPOLL_CTL_ADD, fd, &wanted) == 0);
	for (int i = 0; i < 2; i++) {
		arrive(PORT, ACK | PSH, 1 + i, ours_next, "x");
		CHECK(stack.epoll_wait(stack.data, epoll, told, 2, 0) == 1 && told[0].events == EPOLLIN);
		CHECK(stack.epoll_wait(stack.data, epoll, told, 2, 0) == 0);
	}
	CHECK(stack.read(stack.data, fd, &octet, 1) == 1);
	CHECK(stack.epoll_ctl(stack.data, epoll, EPOLL_CTL_DEL, fd, NULL) == 0);
	arrive(PORT, ACK | RST, 3, 0, "");
	CHECK(stack.close(stack.data, epoll) == 0);
	CHECK(stack.read(stack.data, fd, &octet, 1) == 1);
	FAILS(stack.read(stack.data, fd, &octet, 1), ECONNRESET);
	CHECK(stack.close(stack.data, fd) == 0 && stack.close(stack.data, listener) == 0);
	/* The acknowledgement of what arrived. */
	leave();
	leave();
}

struct blocked {
	pthread_t thread;
	int fd, result, error;
	long long returned;
	char octets[8];
};

static void *blocking_connect(void *argument)
{
	struct blocked *b = argument;
	b->result = stack.connect(stack.data, b->fd, (struct sockaddr *)&theirs, sizeof theirs);
	b->error = errno;
	b->returned = now();
	return NULL;
}

static void *blocking_read(void *argument)
{
	struct blocked *b = argument;
	b->result = stack.read(stack.data, b->fd, b->octets, sizeof b->octets);
	b->returned = now();
	return NULL;
}

/* Waits, in real time, until the thread has made its call: then a SYN has left, or it can be seen nowhere. */
static void test_threads(void)
{
	struct blocked b = { .fd = stack.socket(stack.data, AF_INET6, SOCK_STREAM, 0) };
	long long start = now();
	CHECK(pthread_create(&b.thread, NULL, blocking_connect, &b) == 0);
	struct tcp_info info;
	do {
		socklen_t len = sizeof info;
		CHECK(stack.getsockopt(stack.data, b.fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	} while (info.tcpi_state != TCP_SYN_SENT);
	struct segment syn = leave();
	CHECK(syn.flags == SYN && syn.at - start < 1000);
	CHECK(stack.usleep(stack.data, 100000) == 0);
	long long answered = now();
	int port = word(syn.packet + 40);
	arrive(port, SYN | ACK, 5000, syn.seq + 1, "");
	/* However late the thread is woken, its call has ended when the answer came. */
	CHECK(stack.usleep(stack.data, 5000000) == 0);
	CHECK(pthread_join(b.thread, NULL) == 0);
	CHECK(b.result == 0 && b.returned >= answered && b.returned < answered + 100);
	CHECK(leave().ack == 5001);

	CHECK(pthread_create(&b.thread, NULL, blocking_read, &b) == 0);
	usleep(20000);
	arrive(port, ACK | PSH, 5001, syn.seq + 1, "data");
	CHECK(pthread_join(b.thread, NULL) == 0);
	CHECK(b.result == 4 && memcmp(b.octets, "data", 4) == 0);
	CHECK(leave().ack == 5005);
	CHECK(stack.close(stack.data, b.fd) == 0);
	CHECK(leave().flags == (FIN | ACK));
	arrive(port, RST, 5005, 0, "");

	/* Refused, and without waiting. */
	int fd = stack.socket(stack.data, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), error;
	socklen_t len = sizeof error;
	FAILS(stack.connect(stack.data, fd, (struct sockaddr *)&theirs, sizeof theirs), EINPROGRESS);
	FAILS(stack.connect(stack.data, fd, (struct sockaddr *)&theirs, sizeof theirs), EALREADY);
	syn = leave();
	arrive(word(syn.packet + 40), RST | ACK, 0, syn.seq + 1, "");
	CHECK(stack.getsockopt(stack.data, fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == ECONNREFUSED);
	CHECK(stack.close(stack.data, fd) == 0);

	/* Nobody answers: the thread that moves the clock waits until the retries are used up. */
	fd = stack.socket(stack.data, AF_INET6, SOCK_STREAM, 0);
	start = now();
	FAILS(stack.connect(stack.data, fd, (struct sockaddr *)&theirs, sizeof theirs), ETIMEDOUT);
	CHECK(now() - start > 60000000 && now() - start < 70000000);
	CHECK(stack.close(stack.data, fd) == 0);
}

int main(int count, char **arguments)
{
	CHECK(count == 2);
	void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | RTLD_DEEPBIND);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	init_function init = (init_function)dlsym(library, "packetdrill_interface_init");
	CHECK(init);
	ours.sin6_family = theirs.sin6_family = AF_INET6;
	theirs.sin6_port = htons(THEIR_PORT);
	CHECK(inet_pton(AF_INET6, "fd3d:fa7b:d17d::1", &ours.sin6_addr) == 1);
	CHECK(inet_pton(AF_INET6, "2001:db8::1", &theirs.sin6_addr) == 1);

	/* Flags that are not known leave a stack that makes no sockets. */
	init("no_such_flag=1", &stack);
	FAILS(stack.socket(stack.data, AF_INET6, SOCK_STREAM, 0), EINVAL);
	stack.free(stack.data);

	void (*const tests[])(void) = { test_time, test_errors, test_options, test_data, test_epoll, test_threads };
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		memset(&stack, 0, sizeof stack);
		init(i % 2 ? "" : NULL, &stack);
		for (size_t at = 0; at < sizeof stack / sizeof(void *); at++)
			CHECK(((void **)&stack)[at]);
		tests[i]();
		stack.free(stack.data);
	}
	puts("all functions behave");
	return 0;
}
