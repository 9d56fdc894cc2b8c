/* lwIP as a peer of the simulated world: its TCP in one thread, its clock and its wire in the hands of whoever holds
 * the other ends of standard input and output.
 *
 * A request is: length of what follows (u32), time in milliseconds (u32), an operation (u8), its arguments. The answer
 * is: length (u32), milliseconds until lwIP wants to be woken (u32), and what happened, each as kind (u8), connection
 * (u32), length (u32) and octets. Numbers are little-endian.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/init.h>
#include <lwip/ip6.h>
#include <lwip/netif.h>
#include <lwip/sys.h>
#include <lwip/tcp.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcpip.h>
#include <lwip/timeouts.h>

extern sys_mutex_t lock_tcpip_core;

enum operation { DO_INIT, DO_LISTEN, DO_CONNECT, DO_PACKET, DO_WAKE, DO_READ, DO_WRITE, DO_FINISH, DO_ABORT };
enum happening { SENT_PACKET, ACCEPTED, CONNECTED, OCTETS, GOT_FIN, ROOM, OVER, OPENED, WROTE };

#define MAX_CONNECTIONS 4096

struct connection {
  struct tcp_pcb *pcb; /* none once it is over */
  int finish;          /* a FIN is to be sent as soon as there is memory for it */
};

static struct connection connections[MAX_CONNECTIONS];
static uint32_t count;
static uint32_t now_ms;
static struct netif wire;
static uint8_t *answer;
static size_t answer_len, answer_room;

/* Instead of the library's: time is what we are told, and chance is none. */
u32_t sys_now(void) { return now_ms; }
int rand(void) {
  static uint32_t state = 1;
  state = state * 1103515245u + 12345u;
  return (int)(state >> 1);
}

static void put(const void *octets, size_t len) {
  if (answer_len + len > answer_room) {
    answer_room = 2 * (answer_len + len);
    answer = realloc(answer, answer_room);
    if (answer == NULL) abort();
  }
  memcpy(answer + answer_len, octets, len);
  answer_len += len;
}

static void happens(uint8_t kind, uint32_t connection, const void *octets, uint32_t len) {
  put(&kind, 1);
  put(&connection, 4);
  put(&len, 4);
  put(octets, len);
}

static void over(struct connection *it, uint8_t how) {
  it->pcb = NULL;
  happens(OVER, (uint32_t)(it - connections), &how, 1);
}

static err_t transmit(struct netif *netif, struct pbuf *p, const ip6_addr_t *to) {
  uint8_t packet[65536];
  uint16_t len = pbuf_copy_partial(p, packet, sizeof packet - 1, 0);
  (void)netif;
  (void)to;
  happens(SENT_PACKET, 0, packet, len);
  return ERR_OK;
}

static err_t on_octets(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err) {
  struct connection *it = arg;
  (void)pcb;
  (void)err;
  if (p == NULL) {
    happens(GOT_FIN, (uint32_t)(it - connections), "", 0);
    return ERR_OK;
  }
  for (struct pbuf *q = p; q != NULL; q = q->next)
    happens(OCTETS, (uint32_t)(it - connections), q->payload, q->len);
  pbuf_free(p);
  return ERR_OK;
}

/* The control block is gone already. */
static void on_end(void *arg, err_t err) {
  over(arg, err == ERR_CLSD ? 0 : err == ERR_RST ? 1 : 2);
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err) {
  struct connection *it = arg;
  (void)pcb;
  (void)err;
  happens(CONNECTED, (uint32_t)(it - connections), "", 0);
  return ERR_OK;
}

static struct connection *adopt(struct tcp_pcb *pcb) {
  if (count == MAX_CONNECTIONS) abort();
  struct connection *it = &connections[count++];
  it->pcb = pcb;
  tcp_arg(pcb, it);
  tcp_recv(pcb, on_octets);
  tcp_err(pcb, on_end);
  return it;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err) {
  (void)arg;
  if (err != ERR_OK || pcb == NULL) return ERR_VAL;
  uint16_t port = pcb->local_port;
  happens(ACCEPTED, (uint32_t)(adopt(pcb) - connections), &port, 2);
  return ERR_OK;
}

static err_t begin_wire(struct netif *netif) {
  netif->output_ip6 = transmit;
  return ERR_OK;
}

static void init(const uint8_t *address, uint16_t mtu) {
  ip6_addr_t ours;
  memcpy(ours.addr, address, 16);
  ip6_addr_clear_zone(&ours);
  netif_add_noaddr(&wire, NULL, begin_wire, ip6_input);
  wire.mtu = mtu;
  wire.mtu6 = mtu;
  netif_set_up(&wire);
  netif_set_link_up(&wire);
  netif_set_default(&wire);
  netif_ip6_addr_set(&wire, 0, &ours);
  netif_ip6_addr_set_state(&wire, 0, IP6_ADDR_PREFERRED);
}

static void listen_at(uint16_t port) {
  struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_V6);
  if (pcb == NULL || tcp_bind(pcb, IP6_ADDR_ANY, port) != ERR_OK) abort();
  pcb = tcp_listen_with_backlog(pcb, 64);
  if (pcb == NULL) abort();
  tcp_accept(pcb, on_accept);
}

static void connect_to(const uint8_t *address, uint16_t port) {
  ip_addr_t server;
  struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_V6);
  if (pcb == NULL) abort();
  memset(&server, 0, sizeof server);
  memcpy(ip_2_ip6(&server)->addr, address, 16);
  IP_SET_TYPE_VAL(server, IPADDR_TYPE_V6);
  struct connection *it = adopt(pcb);
  if (tcp_connect(pcb, &server, port, on_connected) != ERR_OK) abort();
  uint16_t local = pcb->local_port;
  happens(OPENED, (uint32_t)(it - connections), &local, 2);
}

static void packet(const uint8_t *octets, uint16_t len) {
  struct pbuf *p = pbuf_alloc(PBUF_RAW, len, PBUF_RAM);
  if (p == NULL) abort();
  pbuf_take(p, octets, len);
  if (wire.input(p, &wire) != ERR_OK) pbuf_free(p);
}

static void act(uint8_t operation, const uint8_t *octets, uint32_t len) {
  uint32_t which, number;
  memcpy(&which, octets, 4);
  struct connection *it = &connections[which];
  if (it->pcb == NULL) return;
  switch (operation) {
    case DO_READ: /* so many octets were taken by the application */
      memcpy(&number, octets + 4, 4);
      for (; number > 0xffff; number -= 0xffff) tcp_recved(it->pcb, 0xffff);
      tcp_recved(it->pcb, (uint16_t)number);
      break;
    case DO_WRITE: {
      uint32_t most = tcp_sndbuf(it->pcb), wrote = len - 4;
      if (wrote > most) wrote = most;
      if (wrote > 0xffff) wrote = 0xffff;
      if (wrote > 0 && tcp_write(it->pcb, octets + 4, (uint16_t)wrote, TCP_WRITE_FLAG_COPY) != ERR_OK) wrote = 0;
      happens(WROTE, which, &wrote, 4);
      tcp_output(it->pcb);
      break;
    }
    case DO_FINISH:
      it->finish = tcp_shutdown(it->pcb, 0, 1) != ERR_OK;
      break;
    default:
      tcp_abort(it->pcb); /* calls on_end */
  }
}

static void carry_out(uint8_t operation, const uint8_t *octets, uint32_t len) {
  uint16_t port;
  switch (operation) {
    case DO_INIT:
      memcpy(&port, octets + 16, 2);
      init(octets, port);
      break;
    case DO_LISTEN:
      memcpy(&port, octets, 2);
      listen_at(port);
      break;
    case DO_CONNECT:
      memcpy(&port, octets + 16, 2);
      connect_to(octets, port);
      break;
    case DO_PACKET:
      packet(octets, (uint16_t)len);
      break;
    case DO_WAKE:
      break;
    default:
      act(operation, octets, len);
  }
}

/* What can be seen of connections only by looking. */
static void look(void) {
  for (uint32_t nth = 0; nth < count; nth++) {
    struct connection *it = &connections[nth];
    if (it->pcb == NULL) continue;
    if (it->pcb->state == TIME_WAIT) {
      over(it, 0);
      continue;
    }
    if (it->finish) it->finish = tcp_shutdown(it->pcb, 0, 1) != ERR_OK;
    uint32_t room = tcp_sndqueuelen(it->pcb) + 8 < TCP_SND_QUEUELEN ? tcp_sndbuf(it->pcb) : 0;
    happens(ROOM, nth, &room, 4);
  }
}

static int take(void *octets, size_t len) { return fread(octets, 1, len, stdin) == len; }

int main(void) {
  static uint8_t request[1 << 20];
  uint32_t len;
  sys_init();
  sys_mutex_new(&lock_tcpip_core);
  sys_lock_tcpip_core();
  sys_mark_tcpip_thread();
  lwip_init();
  while (take(&len, 4) && len >= 5 && len <= sizeof request && take(request, len)) {
    uint32_t wake;
    memcpy(&now_ms, request, 4);
    answer_len = 0;
    put("\0\0\0\0\0\0\0", 8);
    sys_check_timeouts();
    carry_out(request[4], request + 5, len - 5);
    look();
    wake = sys_timeouts_sleeptime();
    len = (uint32_t)(answer_len - 4);
    memcpy(answer, &len, 4);
    memcpy(answer + 4, &wake, 4);
    if (fwrite(answer, 1, answer_len, stdout) != answer_len || fflush(stdout) != 0) return 1;
  }
  return 0;
}
