/* MQTT 3.1.1: packets to send, packets received. */
#include "tidegate.h"

#include <string.h>

static void put_u16(struct tg_writer *s, unsigned value)
{
    tg_put_byte(s, value >> 8);
    tg_put_byte(s, value & 0xffu);
}

static void put_string(struct tg_writer *s, const char *text)
{
    size_t len = strlen(text);
    if (len > 0xffffu) {
        s->full = true;
        return;
    }
    put_u16(s, (unsigned)len);
    tg_put_raw(s, text, len);
}

/* Fixed header (MQTT 3.1.1 §2.2): type and flags, then the remaining length, 7 bits a byte. */
static void put_header(struct tg_writer *s, unsigned first, size_t remaining)
{
    if (remaining > 268435455u) {
        s->full = true;
        return;
    }
    tg_put_byte(s, first);
    do {
        unsigned low = (unsigned)(remaining & 0x7fu);
        remaining >>= 7;
        tg_put_byte(s, remaining > 0 ? low | 0x80u : low);
    } while (remaining > 0);
}

/* ---- MQTT 3.1.1: packets to send ---- */

size_t tg_connect(uint8_t *out, size_t cap, const struct tg_connect *with)
{
    struct tg_writer s = tg_writer(out, cap);
    unsigned flags = with->clean_session ? 0x02u : 0;
    size_t remaining = 10 + 2 + strlen(with->client_id);
    if (with->will_topic != NULL) {
        flags |= 0x04u | 0x08u;
        remaining += 4 + strlen(with->will_topic) + strlen(with->will_text);
    }
    if (with->user != NULL) {
        flags |= 0x80u;
        remaining += 2 + strlen(with->user);
    }
    if (with->user != NULL && with->password != NULL) {
        flags |= 0x40u;
        remaining += 2 + strlen(with->password);
    }
    put_header(&s, 0x10, remaining);
    put_string(&s, "MQTT");
    tg_put_byte(&s, 4);
    tg_put_byte(&s, flags);
    put_u16(&s, with->keep_alive_s);
    put_string(&s, with->client_id);
    if (with->will_topic != NULL) {
        put_string(&s, with->will_topic);
        put_string(&s, with->will_text);
    }
    if (with->user != NULL) {
        put_string(&s, with->user);
    }
    if ((flags & 0x40u) != 0) {
        put_string(&s, with->password);
    }
    return tg_written(&s);
}

size_t tg_subscribe(uint8_t *out, size_t cap, uint16_t packet_id, const char *filter)
{
    struct tg_writer s = tg_writer(out, cap);
    put_header(&s, 0x82, 2 + 2 + strlen(filter) + 1);
    put_u16(&s, packet_id);
    put_string(&s, filter);
    tg_put_byte(&s, 1);
    return tg_written(&s);
}

size_t tg_publish(uint8_t *out, size_t cap, const struct tg_publish *what)
{
    struct tg_writer s = tg_writer(out, cap);
    put_header(&s, what->again ? 0x3a : 0x32, 2 + strlen(what->topic) + 2 + what->payload_len);
    put_string(&s, what->topic);
    put_u16(&s, what->packet_id);
    tg_put_raw(&s, what->payload, what->payload_len);
    return tg_written(&s);
}

size_t tg_puback(uint8_t *out, size_t cap, uint16_t packet_id)
{
    struct tg_writer s = tg_writer(out, cap);
    put_header(&s, 0x40, 2);
    put_u16(&s, packet_id);
    return tg_written(&s);
}

size_t tg_pingreq(uint8_t *out, size_t cap)
{
    struct tg_writer s = tg_writer(out, cap);
    put_header(&s, 0xc0, 0);
    return tg_written(&s);
}

size_t tg_disconnect(uint8_t *out, size_t cap)
{
    struct tg_writer s = tg_writer(out, cap);
    put_header(&s, 0xe0, 0);
    return tg_written(&s);
}

/* ---- MQTT 3.1.1: packets received ---- */

void tg_reader_init(struct tg_reader *reader, uint8_t *buf, size_t cap)
{
    memset(reader, 0, sizeof *reader);
    reader->buf = buf;
    reader->cap = cap;
}

/* Drops what was given out, and what has come of a packet that does not fit. */
static void tidy(struct tg_reader *r)
{
    size_t drop = r->taken;
    size_t skipped = r->len - drop < r->skip ? r->len - drop : (size_t)r->skip;
    drop += skipped;
    r->skip -= (uint32_t)skipped;
    r->taken = 0;
    r->len -= drop;
    if (drop > 0 && r->len > 0) {
        memmove(r->buf, r->buf + drop, r->len);
    }
}

uint8_t *tg_reader_space(struct tg_reader *reader, size_t *len)
{
    tidy(reader);
    *len = reader->cap - reader->len;
    return reader->buf + reader->len;
}

void tg_reader_received(struct tg_reader *reader, size_t len)
{
    reader->len += len;
}

static uint16_t get_u16(const uint8_t *at)
{
    return (uint16_t)((unsigned)at[0] << 8 | at[1]);
}

/* Reads what stands before the payload. `have` bytes of the packet's `body` bytes are there. */
static enum tg_status open_packet(struct tg_packet *p, uint8_t first, const uint8_t *at, size_t have, size_t body)
{
    size_t id_at = 0;
    memset(p, 0, sizeof *p);
    p->type = (enum tg_type)(first >> 4);
    switch (p->type) {
    case TG_CONNACK:
        if (body != 2) {
            return TG_BAD;
        }
        p->code = at[1];
        return TG_OK;
    case TG_PUBACK:
        if (body != 2) {
            return TG_BAD;
        }
        p->packet_id = get_u16(at);
        return TG_OK;
    case TG_SUBACK:
        if (body != 3) {
            return TG_BAD;
        }
        p->packet_id = get_u16(at);
        p->code = at[2];
        return TG_OK;
    case TG_PINGRESP:
        return body == 0 ? TG_OK : TG_BAD;
    case TG_PUBLISH:
        p->qos = (uint8_t)(first >> 1 & 3);
        p->again = (first & 8) != 0;
        if (have < 2 || p->qos > 1) {
            return TG_BAD;
        }
        p->topic = (const char *)at + 2;
        p->topic_len = get_u16(at);
        id_at = 2 + p->topic_len;
        if (have < id_at + (p->qos > 0 ? 2 : 0)) {
            return TG_BAD;
        }
        if (p->qos > 0) {
            p->packet_id = get_u16(at + id_at);
            id_at += 2;
        }
        p->payload = at + id_at;
        p->payload_len = body - id_at;
        return TG_OK;
    default:
        return TG_BAD;
    }
}

/* Where size_t has 16 bits a length may be more than it holds. */
static size_t as_size(uint32_t len)
{
#if SIZE_MAX < UINT32_MAX
    return len < SIZE_MAX ? (size_t)len : SIZE_MAX;
#else
    return len;
#endif
}

enum tg_status tg_reader_next(struct tg_reader *reader, struct tg_packet *packet)
{
    uint32_t body = 0; /* up to 28 bits, also where size_t has 16 */
    size_t head = 1;
    tidy(reader);
    if (reader->skip > 0) {
        return TG_MORE;
    }
    for (;; head++) {
        if (head > 4) {
            return TG_BAD;
        }
        if (head >= reader->len) {
            return TG_MORE;
        }
        body |= (uint32_t)(reader->buf[head] & 0x7f) << (7 * (head - 1));
        if ((reader->buf[head] & 0x80) == 0) {
            break;
        }
    }
    head++;
    if (reader->len < head + body && reader->len < reader->cap) {
        return TG_MORE;
    }
    if (reader->cap < head + body) {
        if (reader->buf[0] >> 4 != TG_PUBLISH
            || open_packet(packet, reader->buf[0], reader->buf + head, reader->len - head,
                           as_size(body)) != TG_OK) {
            return TG_BAD;
        }
        packet->payload = NULL;
        reader->taken = reader->len;
        reader->skip = (uint32_t)(head + body - reader->len);
        return TG_TOO_LARGE;
    }
    reader->taken = head + (size_t)body;
    return open_packet(packet, reader->buf[0], reader->buf + head, (size_t)body, (size_t)body);
}
