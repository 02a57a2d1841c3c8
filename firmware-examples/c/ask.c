/* The states of an ask and the time that they may take. */
#include "ask_parts.h"

#include <string.h>

void tg_state_enter(struct tg_ask *a, enum tg_state state)
{
    a->state = state;
    a->entered = a->now;
}

uint32_t tg_state_passed(const struct tg_ask *a, uint32_t since)
{
    return a->now - since;
}

void tg_state_decide(struct tg_ask *a, enum tg_outcome outcome, const char *why)
{
    if (a->outcome != TG_UNDECIDED) {
        return;
    }
    a->outcome = outcome;
    a->why = why;
    if (a->open) {
        size_t cap;
        uint8_t *out = tg_out_room(a, &cap);
        tg_out_push(a, tg_disconnect(out, cap));
        tg_state_enter(a, TG_LEAVES);
    } else {
        tg_state_enter(a, TG_ENDED);
    }
}

void tg_state_give_up(struct tg_ask *a, const char *why)
{
    a->why = why;
    a->out_len = 0;
    tg_state_enter(a, TG_BREAKS);
}

void tg_state_rest(struct tg_ask *a, enum tg_state state, uint32_t pause_ms)
{
    a->pause_ms = pause_ms;
    tg_state_enter(a, state);
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
        a->wants = a->out_len == 0 || tg_state_passed(a, a->entered) >= 1000u ? TG_WANTS_SHUT : TG_WANTS_IO;
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
    size_t topic_len = tg_out_topic(topic, set, "/answer/");
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
    if (!tg_out_prompt(ask) || ask->out_len + SMALL_BYTES > ask->out_cap) {
        return false;
    }
    ask->out_len = 0;
    if (!tg_out_connect(ask)) {
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
    tg_state_enter(ask, TG_OPENS);
    show_wants(ask);
}

void tg_ask_opened(struct tg_ask *ask, uint32_t now)
{
    ask->now = ask->sent_at = ask->heard_at = now;
    ask->open = true;
    ask->pinged = false;
    ask->out_len = 0;
    tg_reader_init(&ask->reader, ask->reader.buf, ask->reader.cap);
    tg_out_connect(ask);
    tg_state_enter(ask, TG_CONNECTS);
    show_wants(ask);
}

void tg_ask_closed(struct tg_ask *ask, const char *why, uint32_t now)
{
    ask->now = now;
    ask->open = false;
    if (ask->outcome != TG_UNDECIDED) {
        tg_state_enter(ask, TG_ENDED);
    } else {
        ask->why = ask->state == TG_BREAKS ? ask->why : why;
        ask->attempts++;
        if (ask->attempts >= ask->set.attempts_max) {
            tg_state_decide(ask, TG_UNREACHABLE, ask->why);
        } else {
            tg_state_rest(ask, TG_RESTS, backoff_ms(ask->attempts));
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

void tg_ask_received(struct tg_ask *ask, size_t len, uint32_t now)
{
    ask->now = now;
    tg_reader_received(&ask->reader, len);
    tg_in_drain(ask);
    show_wants(ask);
}

/* ---- time ---- */

static void keep_alive(struct tg_ask *a)
{
    uint32_t half_ms = (uint32_t)a->set.keep_alive_s * 500u;
    size_t cap;
    uint8_t *out = tg_out_room(a, &cap);
    if (a->pinged && tg_state_passed(a, a->sent_at) >= half_ms) {
        tg_state_give_up(a, "the gateway does not answer any more");
    } else if (!a->pinged && (tg_state_passed(a, a->sent_at) >= half_ms || tg_state_passed(a, a->heard_at) >= 2 * half_ms)) {
        if (tg_out_push(a, tg_pingreq(out, cap))) {
            a->pinged = true;
            a->sent_at = a->now;
        }
    }
}

static void step(struct tg_ask *a)
{
    switch (a->state) {
    case TG_RESTS:
        if (tg_state_passed(a, a->entered) >= a->pause_ms) {
            tg_state_enter(a, TG_OPENS);
        }
        break;
    case TG_HOLDS:
        if (tg_state_passed(a, a->entered) >= a->pause_ms && a->out_len == 0) {
            a->acknowledged = false;
            tg_out_prompt(a);
            tg_state_enter(a, TG_ASKS);
        }
        keep_alive(a);
        break;
    case TG_CONNECTS:
    case TG_SUBSCRIBES:
        if (tg_state_passed(a, a->entered) >= TG_STEP_MS) {
            tg_state_give_up(a, "the gateway does not answer");
        }
        break;
    case TG_ASKS:
        keep_alive(a);
        break;
    default:
        break;
    }
}

static bool is_late(const struct tg_ask *a)
{
    uint32_t grace_ms = a->set.grace_ms != 0 ? a->set.grace_ms : TG_GRACE_MS, passed = tg_state_passed(a, a->began);
    return passed >= a->set.deadline_ms && passed - a->set.deadline_ms >= grace_ms;
}

void tg_ask_tick(struct tg_ask *ask, uint32_t now)
{
    ask->now = now;
    if (ask->outcome == TG_UNDECIDED && is_late(ask)) {
        tg_state_decide(ask, ask->met ? TG_SILENT : TG_UNREACHABLE, ask->met ? "no outcome in time" : "no connection in time");
    }
    if (ask->open) {
        tg_in_drain(ask);
    }
    if (ask->outcome == TG_UNDECIDED) {
        step(ask);
    }
    show_wants(ask);
}
