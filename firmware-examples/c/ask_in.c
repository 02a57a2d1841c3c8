/* What an ask receives: packets, and the frames of its prompt. */
#include "ask_parts.h"

#include <string.h>

static bool is_ours(const struct tg_ask *a, const struct tg_packet *p)
{
    char topic[TG_TOPIC_BYTES];
    size_t len = tg_out_topic(topic, &a->set, "/answer/");
    return p->topic_len == len && memcmp(p->topic, topic, len) == 0;
}

/* False: no text begins so; it is the outcome of an earlier prompt, in CBOR. */
static bool take_text(struct tg_ask *a, const struct tg_packet *p)
{
    bool refused = p->payload_len > 0 && p->payload[0] == '!';
    if (p->payload_len > 0 && (p->payload[0] & 0xc0u) == 0x80u) {
        return false;
    }
    a->say(a->with, refused ? TG_SAID_ERROR : TG_SAID_ANSWER, p->payload, p->payload_len);
    tg_state_decide(a, refused ? TG_REFUSED : TG_ANSWERED, refused ? "the gateway refused" : "answered");
    return true;
}

static void take_error(struct tg_ask *a, const struct tg_packet *p)
{
    struct tg_value v;
    bool busy = tg_find(p->payload, p->payload_len, "code", &v) == TG_OK && tg_is(&v, "busy");
    a->say(a->with, TG_SAID_ERROR, p->payload, p->payload_len);
    if (busy && tg_find(p->payload, p->payload_len, "retry_after_ms", &v) == TG_OK && v.kind == TG_UINT
        && a->attempts + 1 < a->set.attempts_max && v.number < a->set.deadline_ms) {
        a->attempts++;
        tg_state_rest(a, TG_HOLDS, (uint32_t)v.number);
    } else {
        tg_state_decide(a, TG_REFUSED, "the gateway refused");
    }
}

static bool has_body(const struct tg_packet *p)
{
    struct tg_value v;
    if (tg_find(p->payload, p->payload_len, "text", &v) == TG_OK) {
        return v.kind == TG_TEXT;
    }
    return tg_find(p->payload, p->payload_len, "json", &v) == TG_OK;
}

/* A frame in CBOR. False: it makes no sense, or is not for our prompt. */
static bool take_frame(struct tg_ask *a, const struct tg_packet *p)
{
    struct tg_value kind, v;
    enum tg_status named = tg_find(p->payload, p->payload_len, "id", &v);
    if (!tg_whole(p->payload, p->payload_len) || tg_find(p->payload, p->payload_len, "kind", &kind) != TG_OK) {
        return false;
    }
    /* An error without an id means a prompt whose id could not be read: it can only be ours. */
    if (!(named == TG_OK && tg_is(&v, a->id)) && !(named == TG_NOT_FOUND && tg_is(&kind, "error"))) {
        return false;
    }
    if (tg_is(&kind, "error")) {
        take_error(a, p);
        return true;
    }
    if (tg_is(&kind, "accepted") || tg_is(&kind, "token")) {
        a->say(a->with, tg_is(&kind, "token") ? TG_SAID_TOKEN : TG_SAID_ACCEPTED, p->payload, p->payload_len);
        return true;
    }
    if (!tg_is(&kind, "answer") || !has_body(p)
        || tg_find(p->payload, p->payload_len, "provisional", &v) != TG_OK || v.kind != TG_BOOL) {
        return false;
    }
    a->say(a->with, v.number != 0 ? TG_SAID_PROVISIONAL : TG_SAID_ANSWER, p->payload, p->payload_len);
    if (v.number == 0) {
        tg_state_decide(a, TG_ANSWERED, "answered");
    }
    return true;
}

static void take_publish(struct tg_ask *a, const struct tg_packet *p, enum tg_status status)
{
    size_t cap;
    uint8_t *out;
    if (p->qos > 0) {
        out = tg_out_room(a, &cap);
        tg_out_push(a, tg_puback(out, cap, p->packet_id));
    }
    if (a->outcome != TG_UNDECIDED) {
        return;
    }
    /* What was not acknowledged may come before SUBACK (MQTT 3.1.1 §3.8.4); only a frame has an id to be known by. */
    if (status == TG_TOO_LARGE || !is_ours(a, p) || a->state < (a->set.bare ? TG_ASKS : TG_SUBSCRIBES)) {
        a->dropped++;
    } else if (a->set.bare ? !take_text(a, p) : !take_frame(a, p)) {
        a->dropped++;
    }
}

static void take_connack(struct tg_ask *a, uint8_t code)
{
    if (code == 0) {
        a->met = true;
        tg_out_subscribe(a);
        tg_state_enter(a, TG_SUBSCRIBES);
    } else if (code == 3) {
        tg_state_give_up(a, "the broker is not available");
    } else {
        tg_state_decide(a, TG_REFUSED, code == 4 ? "wrong user name or password" : code == 5 ? "not authorised" : "connection refused");
    }
}

static void take_suback(struct tg_ask *a, uint8_t code)
{
    if (code > 2) {
        tg_state_decide(a, TG_REFUSED, "not our topic: the subscription was refused");
        return;
    }
    tg_state_enter(a, TG_ASKS);
    if (!a->asked) {
        a->asked = true;
        a->began = a->now;
    }
    /* Acknowledged once is kept: the outcome comes to whoever subscribes. Bare text has no id to be known by. */
    if (!a->acknowledged && !tg_out_prompt(a)) {
        tg_state_decide(a, TG_USAGE, "the prompt does not fit the buffer");
    }
}

static void take(struct tg_ask *a, const struct tg_packet *p, enum tg_status status)
{
    a->heard_at = a->now;
    a->pinged = false;
    if (p->type == TG_PUBLISH) {
        take_publish(a, p, status);
    } else if (p->type == TG_CONNACK && a->state == TG_CONNECTS) {
        take_connack(a, p->code);
    } else if (p->type == TG_SUBACK && a->state == TG_SUBSCRIBES) {
        take_suback(a, p->code);
    } else if (p->type == TG_PUBACK && p->packet_id == PROMPT_ID) {
        a->acknowledged = true;
    }
}

void tg_in_drain(struct tg_ask *a)
{
    struct tg_packet p;
    while (a->open && a->state != TG_BREAKS && a->out_len + SMALL_BYTES <= a->out_cap) {
        enum tg_status status = tg_reader_next(&a->reader, &p);
        if (status == TG_MORE) {
            return;
        }
        if (status == TG_BAD) {
            if (a->outcome == TG_UNDECIDED) {
                tg_state_give_up(a, "what came is no MQTT");
            } else {
                tg_state_enter(a, TG_BREAKS);
            }
            return;
        }
        take(a, &p, status);
    }
}
