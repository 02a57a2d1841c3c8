#include "ask.h"

#include <string.h>

/* PUBACK, PINGREQ and DISCONNECT that wait behind the prompt. */
#define SMALL_BYTES 8u
#define SUBSCRIBE_ID 1
#define PROMPT_ID 2

/* ---- texts ---- */

static size_t put_topic(char *out, const struct tg_settings *set, const char *what)
{
    const char *parts[5];
    size_t i, n, len = 0;
    parts[0] = "tg/v1/";
    parts[1] = set->gateway;
    parts[2] = what;
    parts[3] = set->device;
    parts[4] = "";
    for (i = 0; i < 5; i++) {
        n = strlen(parts[i]);
        if (n >= TG_TOPIC_BYTES - len) {
            return 0;
        }
        memcpy(out + len, parts[i], n + 1);
        len += n;
    }
    return len;
}

void tg_make_id(char id[TG_ID_BYTES], uint32_t boot, uint32_t count)
{
    static const char DIGITS[] = "0123456789abcdef";
    char number[10];
    size_t n = 0, at = 0;
    int shift;
    for (shift = 28; shift >= 0; shift -= 4) {
        id[at++] = DIGITS[boot >> shift & 15u];
    }
    id[at++] = '-';
    do {
        number[n++] = DIGITS[count % 10];
        count /= 10;
    } while (count > 0);
    while (n > 0) {
        id[at++] = number[--n];
    }
    id[at] = '\0';
}

/* ---- what goes out ---- */

static bool push(struct tg_ask *a, size_t len)
{
    a->out_len += len;
    return len > 0;
}

static uint8_t *room(struct tg_ask *a, size_t *cap)
{
    *cap = a->out_cap - a->out_len;
    return a->out + a->out_len;
}

static bool push_connect(struct tg_ask *a)
{
    struct tg_connect with = {0};
    size_t cap;
    uint8_t *out = room(a, &cap);
    with.client_id = a->set.device;
    with.user = a->set.user;
    with.password = a->set.password;
    with.will_topic = a->set.will_topic;
    with.will_text = "lost";
    with.keep_alive_s = a->set.keep_alive_s;
    with.clean_session = true;
    return push(a, tg_connect(out, cap, &with));
}

static bool push_subscribe(struct tg_ask *a)
{
    char topic[TG_TOPIC_BYTES];
    size_t cap;
    uint8_t *out = room(a, &cap);
    return put_topic(topic, &a->set, "/answer/") > 0 && push(a, tg_subscribe(out, cap, SUBSCRIBE_ID, topic));
}

static size_t prompt_bytes(const struct tg_ask *a, size_t topic_len, uint8_t *out, size_t cap)
{
    struct tg_prompt prompt = {0};
    size_t len = strlen(a->set.text);
    if (a->set.bare) {
        if (len > cap) {
            return 0;
        }
        memcpy(out, a->set.text, len);
        return len;
    }
    prompt.id = a->id;
    prompt.task = a->set.task;
    prompt.input = a->set.text;
    prompt.max_tokens = a->set.max_tokens;
    prompt.max_bytes = (uint32_t)(a->reader.cap - topic_len - 9);
    prompt.deadline_ms = a->set.deadline_ms;
    prompt.stream = a->set.stream;
    prompt.local = a->set.local;
    return tg_prompt(out, cap, &prompt);
}

/* The same bytes each time: another deadline would be another prompt. */
static bool push_prompt(struct tg_ask *a)
{
    char topic[TG_TOPIC_BYTES];
    struct tg_publish publish = {0};
    size_t cap, head = put_topic(topic, &a->set, "/prompt/") + 9;
    uint8_t *out = room(a, &cap);
    if (head == 9 || cap <= head) {
        return false;
    }
    publish.topic = topic;
    publish.payload = out + head;
    publish.payload_len = prompt_bytes(a, head - 9, out + head, cap - head);
    publish.packet_id = PROMPT_ID;
    return publish.payload_len > 0 && push(a, tg_publish(out, cap, &publish));
}

/* ---- states ---- */

static void enter(struct tg_ask *a, enum tg_state state)
{
    a->state = state;
    a->entered = a->now;
}

static uint32_t passed(const struct tg_ask *a, uint32_t since)
{
    return a->now - since;
}

static void decide(struct tg_ask *a, enum tg_outcome outcome, const char *why)
{
    if (a->outcome != TG_UNDECIDED) {
        return;
    }
    a->outcome = outcome;
    a->why = why;
    if (a->open) {
        size_t cap;
        uint8_t *out = room(a, &cap);
        push(a, tg_disconnect(out, cap));
        enter(a, TG_LEAVES);
    } else {
        enter(a, TG_ENDED);
    }
}

/* The connection is of no use any more. */
static void give_up_link(struct tg_ask *a, const char *why)
{
    a->why = why;
    a->out_len = 0;
    enter(a, TG_BREAKS);
}

static void rest(struct tg_ask *a, enum tg_state state, uint32_t pause_ms)
{
    a->pause_ms = pause_ms;
    enter(a, state);
}

static uint32_t backoff_ms(uint8_t attempts)
{
    uint32_t pause = TG_PAUSE_MS;
    while (attempts > 1 && pause < TG_PAUSE_MS_MAX) {
        pause *= 2;
        attempts--;
    }
    return pause < TG_PAUSE_MS_MAX ? pause : TG_PAUSE_MS_MAX;
}

static void show_wants(struct tg_ask *a)
{
    switch (a->state) {
    case TG_RESTS:
        a->wants = TG_WANTS_TIME;
        break;
    case TG_OPENS:
        a->wants = TG_WANTS_LINK;
        break;
    case TG_BREAKS:
        a->wants = TG_WANTS_SHUT;
        break;
    case TG_LEAVES:
        a->wants = a->out_len == 0 || passed(a, a->entered) >= 1000u ? TG_WANTS_SHUT : TG_WANTS_IO;
        break;
    case TG_ENDED:
        a->wants = TG_WANTS_END;
        break;
    default:
        a->wants = TG_WANTS_IO;
        break;
    }
}

bool tg_ask_init(struct tg_ask *ask, const struct tg_settings *set, const char *id, const struct tg_buffers *buffers)
{
    char topic[TG_TOPIC_BYTES];
    size_t topic_len = put_topic(topic, set, "/answer/");
    memset(ask, 0, sizeof *ask);
    ask->set = *set;
    ask->id = id;
    ask->outcome = TG_UNDECIDED;
    ask->why = "";
    ask->out = buffers->out;
    ask->out_cap = buffers->out_cap;
    tg_reader_init(&ask->reader, buffers->in, buffers->in_cap);
    if (topic_len == 0 || buffers->in_cap < topic_len + 9 + 64 || buffers->in_cap > UINT32_MAX) {
        return false;
    }
    /* Once for the sake of its length: each packet with a PUBACK behind it must fit. */
    if (!push_prompt(ask) || ask->out_len + SMALL_BYTES > ask->out_cap) {
        return false;
    }
    ask->out_len = 0;
    if (!push_connect(ask)) {
        return false;
    }
    ask->out_len = 0;
    return true;
}

void tg_ask_begin(struct tg_ask *ask, tg_say *say, void *with, uint32_t now)
{
    ask->say = say;
    ask->with = with;
    ask->now = ask->began = now;
    enter(ask, TG_OPENS);
    show_wants(ask);
}

void tg_ask_opened(struct tg_ask *ask, uint32_t now)
{
    ask->now = ask->sent_at = ask->heard_at = now;
    ask->open = true;
    ask->pinged = false;
    ask->out_len = 0;
    tg_reader_init(&ask->reader, ask->reader.buf, ask->reader.cap);
    push_connect(ask);
    enter(ask, TG_CONNECTS);
    show_wants(ask);
}

void tg_ask_closed(struct tg_ask *ask, const char *why, uint32_t now)
{
    ask->now = now;
    ask->open = false;
    if (ask->outcome != TG_UNDECIDED) {
        enter(ask, TG_ENDED);
    } else {
        ask->why = ask->state == TG_BREAKS ? ask->why : why;
        ask->attempts++;
        if (ask->attempts >= ask->set.attempts_max) {
            decide(ask, TG_UNREACHABLE, ask->why);
        } else {
            rest(ask, TG_RESTS, backoff_ms(ask->attempts));
        }
    }
    show_wants(ask);
}

const uint8_t *tg_ask_out(const struct tg_ask *ask, size_t *len)
{
    *len = ask->out_len;
    return ask->out;
}

void tg_ask_sent(struct tg_ask *ask, size_t len, uint32_t now)
{
    ask->now = now;
    ask->out_len -= len;
    if (len > 0) {
        memmove(ask->out, ask->out + len, ask->out_len);
        ask->sent_at = now;
    }
    show_wants(ask);
}

uint8_t *tg_ask_space(struct tg_ask *ask, size_t *len)
{
    uint8_t *at = tg_reader_space(&ask->reader, len);
    if (ask->out_len + SMALL_BYTES > ask->out_cap) {
        *len = 0;
    }
    return at;
}

/* ---- what comes in ---- */

static bool is_ours(const struct tg_ask *a, const struct tg_packet *p)
{
    char topic[TG_TOPIC_BYTES];
    size_t len = put_topic(topic, &a->set, "/answer/");
    return p->topic_len == len && memcmp(p->topic, topic, len) == 0;
}

static void take_text(struct tg_ask *a, const struct tg_packet *p)
{
    bool refused = p->payload_len > 0 && p->payload[0] == '!';
    a->say(a->with, refused ? TG_SAID_ERROR : TG_SAID_ANSWER, p->payload, p->payload_len);
    decide(a, refused ? TG_REFUSED : TG_ANSWERED, refused ? "the gateway refused" : "answered");
}

static void take_error(struct tg_ask *a, const struct tg_packet *p)
{
    struct tg_value v;
    bool busy = tg_find(p->payload, p->payload_len, "code", &v) == TG_OK && tg_is(&v, "busy");
    a->say(a->with, TG_SAID_ERROR, p->payload, p->payload_len);
    if (busy && tg_find(p->payload, p->payload_len, "retry_after_ms", &v) == TG_OK && v.kind == TG_UINT
        && a->attempts + 1 < a->set.attempts_max && v.number < a->set.deadline_ms) {
        a->attempts++;
        rest(a, TG_HOLDS, (uint32_t)v.number);
    } else {
        decide(a, TG_REFUSED, "the gateway refused");
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
        decide(a, TG_ANSWERED, "answered");
    }
    return true;
}

static void take_publish(struct tg_ask *a, const struct tg_packet *p, enum tg_status status)
{
    size_t cap;
    uint8_t *out;
    if (p->qos > 0) {
        out = room(a, &cap);
        push(a, tg_puback(out, cap, p->packet_id));
    }
    if (a->outcome != TG_UNDECIDED) {
        return;
    }
    if (status == TG_TOO_LARGE || !is_ours(a, p) || a->state < TG_ASKS) {
        a->dropped++;
    } else if (a->set.bare) {
        take_text(a, p);
    } else if (!take_frame(a, p)) {
        a->dropped++;
    }
}

static void take_connack(struct tg_ask *a, uint8_t code)
{
    if (code == 0) {
        a->met = true;
        push_subscribe(a);
        enter(a, TG_SUBSCRIBES);
    } else if (code == 3) {
        give_up_link(a, "the broker is not available");
    } else {
        decide(a, TG_REFUSED, code == 4 ? "wrong user name or password" : code == 5 ? "not authorised" : "connection refused");
    }
}

static void take_suback(struct tg_ask *a, uint8_t code)
{
    if (code > 2) {
        decide(a, TG_REFUSED, "not our topic: the subscription was refused");
        return;
    }
    enter(a, TG_ASKS);
    /* Acknowledged once is kept: the outcome comes to whoever subscribes. Bare text has no id to be known by. */
    if (!a->acknowledged && !push_prompt(a)) {
        decide(a, TG_USAGE, "the prompt does not fit the buffer");
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

/* Takes packets as long as a PUBACK for the next one fits. */
static void drain(struct tg_ask *a)
{
    struct tg_packet p;
    while (a->open && a->state != TG_BREAKS && a->out_len + SMALL_BYTES <= a->out_cap) {
        enum tg_status status = tg_reader_next(&a->reader, &p);
        if (status == TG_MORE) {
            return;
        }
        if (status == TG_BAD) {
            if (a->outcome == TG_UNDECIDED) {
                give_up_link(a, "what came is no MQTT");
            } else {
                enter(a, TG_BREAKS);
            }
            return;
        }
        take(a, &p, status);
    }
}

void tg_ask_received(struct tg_ask *ask, size_t len, uint32_t now)
{
    ask->now = now;
    tg_reader_received(&ask->reader, len);
    drain(ask);
    show_wants(ask);
}

/* ---- time ---- */

static void keep_alive(struct tg_ask *a)
{
    uint32_t half_ms = (uint32_t)a->set.keep_alive_s * 500u;
    size_t cap;
    uint8_t *out = room(a, &cap);
    if (a->pinged && passed(a, a->sent_at) >= half_ms) {
        give_up_link(a, "the gateway does not answer any more");
    } else if (!a->pinged && (passed(a, a->sent_at) >= half_ms || passed(a, a->heard_at) >= 2 * half_ms)) {
        if (push(a, tg_pingreq(out, cap))) {
            a->pinged = true;
            a->sent_at = a->now;
        }
    }
}

static void step(struct tg_ask *a)
{
    switch (a->state) {
    case TG_RESTS:
        if (passed(a, a->entered) >= a->pause_ms) {
            enter(a, TG_OPENS);
        }
        break;
    case TG_HOLDS:
        if (passed(a, a->entered) >= a->pause_ms && a->out_len == 0) {
            a->acknowledged = false;
            push_prompt(a);
            enter(a, TG_ASKS);
        }
        keep_alive(a);
        break;
    case TG_CONNECTS:
    case TG_SUBSCRIBES:
        if (passed(a, a->entered) >= TG_STEP_MS) {
            give_up_link(a, "the gateway does not answer");
        }
        break;
    case TG_ASKS:
        keep_alive(a);
        break;
    default:
        break;
    }
}

void tg_ask_tick(struct tg_ask *ask, uint32_t now)
{
    ask->now = now;
    if (ask->outcome == TG_UNDECIDED && passed(ask, ask->began) >= ask->set.deadline_ms + TG_GRACE_MS) {
        decide(ask, ask->met ? TG_SILENT : TG_UNREACHABLE, ask->met ? "no outcome in time" : "no connection in time");
    }
    if (ask->open) {
        drain(ask);
    }
    if (ask->outcome == TG_UNDECIDED) {
        step(ask);
    }
    show_wants(ask);
}
