// The page: shows what /api/live says every second, asks prompts, tries dead letters again.
// Whatever comes from outside is put in as text, never as markup.
'use strict';
(() => {
  const $ = (id) => document.getElementById(id);
  const put = (id, text) => { const e = $(id); if (e.textContent !== text) e.textContent = text; };
  const make = (tag, text, kind) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (kind) e.className = kind; return e; };
  const RETRY_MS = 2000;
  let token = sessionStorage.getItem('tidegate-token') || '';
  let deadShown = -1;

  const headers = (more) => ({ ...(token ? { Authorization: 'Bearer ' + token } : {}), ...more });
  const act = (path, body) => fetch(path, { method: 'POST', headers: headers({ 'tidegate-act': '1', 'Content-Type': 'application/json' }), body: JSON.stringify(body) });

  // Reads a body as text, piece by piece, split at a separator.
  async function pieces(response, separator, take) {
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split(separator);
      rest = parts.pop();
      parts.forEach(take);
    }
  }

  const count = (n) => Number(n || 0).toLocaleString('en');
  const bytes = (n) => {
    if (n === undefined) return '–';
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let u = 0;
    while (n >= 1024 && u < units.length - 1) { n /= 1024; u += 1; }
    return (u && n < 10 ? n.toFixed(1) : Math.round(n)) + ' ' + units[u];
  };
  const time = (s) => s < 90 ? Math.round(s) + ' s' : s < 5400 ? Math.round(s / 60) + ' min' : s < 129600 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' days';
  const ms = (n) => n === null || n === undefined ? '–' : n < 1000 ? n + ' ms' : (n / 1000).toFixed(1) + ' s';

  function facts(list, rows) {
    const shown = rows.map(([key, value]) => key + '\u0000' + value).join('\u0001');
    if (list.dataset.shown === shown) return;
    list.dataset.shown = shown;
    list.replaceChildren(...rows.flatMap(([key, value, kind]) => [make('dt', key), make('dd', value, kind)]));
  }

  function meter(value, max, label) {
    const bar = make('progress');
    bar.max = Math.max(max, 1);
    bar.value = Math.min(value, bar.max);
    bar.setAttribute('aria-label', label);
    return bar;
  }

  function showLink(link) {
    const words = { up: 'link up', down: 'link down', none: 'no central broker' };
    put('link-state', words[link.state] || link.state);
    put('link-since', link.state === 'none' ? '' : 'for ' + time(link.since_s));
    $('link').classList.toggle('good', link.state === 'up');
    $('link').classList.toggle('bad', link.state === 'down');
  }

  function showQueues(n) {
    const rows = ['prompts', 'escalations', 'outcomes', 'telemetry', 'dead'].map((name) => {
      const of = (what) => n[`tidegate_queue_${what}{class="${name}"}`] || 0;
      const row = make('tr');
      const title = make('th', name);
      title.scope = 'row';
      const share = Math.max(of('entries') / (of('entries_max') || 1), of('bytes') / (of('bytes_max') || 1));
      const full = make('td');
      full.append(meter(share, 1, name + ' full'), ' ' + Math.round(share * 100) + ' %');
      const age = of('oldest_age_seconds');
      row.append(title, make('td', count(of('entries')) + ' of ' + count(of('entries_max'))),
        make('td', bytes(of('bytes')) + ' of ' + bytes(of('bytes_max'))), full, make('td', of('entries') ? time(age) : '–'));
      return row;
    });
    $('queues').replaceChildren(...rows);
  }

  function showHour(hour) {
    const all = Object.values(hour.ways).reduce((a, b) => a + b, 0);
    $('ways').replaceChildren(...Object.entries(hour.ways).filter(([way, n]) => n || way !== 'peer').map(([way, n]) => {
      const row = make('div', undefined, 'way');
      row.append(make('span', way), meter(n, all, way + ' in the last hour'), make('span', count(n)));
      return row;
    }));
    put('p50', ms(hour.p50_ms));
    put('p95', ms(hour.p95_ms));
    const most = Math.max(...hour.confidence, 1);
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', '0 0 100 40');
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('aria-hidden', 'true');
    hour.confidence.forEach((n, i) => {
      const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
      const high = n ? Math.max(40 * n / most, 1) : 0;
      [['x', i * 10 + 0.5], ['width', 9], ['y', 40 - high], ['height', high]].forEach(([k, v]) => bar.setAttribute(k, v));
      svg.append(bar);
    });
    $('confidence').replaceChildren(svg);
    const told = hour.confidence.reduce((a, b) => a + b, 0);
    put('confidence-text', told ? '0 to 1 in tenths: ' + hour.confidence.join(', ') : 'no answers yet');
  }

  function showNow(state, n) {
    put('rate', (n.tidegate_prompts_per_second || 0).toFixed(2));
    put('stages', ['queued', 'running', 'escalated'].map((s) => count(n[`tidegate_prompts{stage="${s}"}`])).join(', '));
    const now = n.tidegate_engine_tokens_per_second, best = n.tidegate_engine_expected_tokens_per_second;
    put('speed', (now === undefined ? '–' : now.toFixed(0)) + (best === undefined ? '' : ' of ' + best.toFixed(0) + ' expected'));
    put('connections', count(n.tidegate_door_connections));
    const reasons = { host: 'foreign name', foreign: 'another site', token: 'wrong token', body: 'too large or malformed', slow: 'too slow', crowd: 'too many at once' };
    const turned = Object.entries(reasons).map(([why, words]) => [n[`tidegate_page_turned_away_total{why="${why}"}`], words]).filter(([times]) => times);
    put('turned', turned.map(([times, words]) => count(times) + ' ' + words).join(', ') || 'none');
    const budget = state.budget;
    put('budget', budget ? (100 - budget.percent_used) + ' % of ' + bytes(budget.bytes_max) : 'no limit');
  }

  function showMachine(n) {
    put('disk', bytes(n.tidegate_disk_free_bytes) + ' of ' + bytes(n.tidegate_disk_size_bytes));
    put('memory', bytes(n.tidegate_host_memory_available_bytes) + ' of ' + bytes(n.tidegate_host_memory_size_bytes));
    put('resident', bytes(n.process_resident_memory_bytes) + ', ' + bytes(n.tidegate_engine_resident_memory_bytes));
    const heat = n.tidegate_host_temperature_celsius;
    put('temperature', heat === undefined ? 'not told' : heat.toFixed(0) + ' °C');
    const certificates = Object.entries(n).filter(([key]) => key.startsWith('tidegate_certificate_expiry'));
    const days = (at) => Math.floor((at - Date.now() / 1000) / 86400);
    put('certificates', certificates.map(([key, at]) => key.split('"')[1] + ' ' + days(at) + ' days').join(', ') || 'none');
    $('certificates').classList.toggle('warn', certificates.some(([, at]) => days(at) < 30));
    put('clock', n.tidegate_clock_synchronised ? 'synchronised' : 'not synchronised');
  }

  function showEvents(events) {
    const list = $('events');
    const shown = JSON.stringify(events);
    if (list.dataset.shown === shown) return;
    list.dataset.shown = shown;
    if (!events.length) return list.replaceChildren(make('li', 'none since the start'));
    list.replaceChildren(...events.map((event) => {
      const row = make('li');
      row.append(make('span', new Date(event.at_ms).toLocaleTimeString(), 'when'), make('strong', event.kind), ' ' + event.message);
      return row;
    }));
  }

  function showTasks(tasks) {
    const select = $('ask-task');
    const names = tasks.map((task) => task.name);
    if (select.dataset.shown === names.join()) return;
    select.dataset.shown = names.join();
    select.replaceChildren(...[''].concat(names).map((name) => {
      const option = make('option', name || 'default');
      option.value = name;
      return option;
    }));
  }

  function show(state) {
    const n = state.numbers;
    $('stale').hidden = true;
    if (state.site) {
      put('name', state.site + '/' + state.gateway);
      put('about', 'version ' + state.version + ', up ' + time(state.uptime_s) + (state.model ? ', ' + state.model.name : '') + (state.draining ? ', stopping' : ''));
      showLink(state.link);
      showNow(state, n);
      showHour(state.hour);
      showQueues(n);
      showMachine(n);
      showEvents(state.events);
      showTasks(state.tasks);
    }
    facts($('parts'), state.parts.map((part) => [part.name, part.words, part.ok ? 'good' : part.name === 'link' ? 'warn' : 'bad']));
    const faults = state.faults;
    $('faults').hidden = !faults.length;
    const shown = faults.join('\n');
    if ($('fault-list').dataset.shown !== shown) {
      $('fault-list').dataset.shown = shown;
      $('fault-list').replaceChildren(...faults.map((fault) => make('li', fault)));
    }
    const dead = n['tidegate_queue_entries{class="dead"}'] || 0;
    if (dead !== deadShown) showDead(dead);
  }

  async function showDead(expected) {
    deadShown = expected;
    const response = await fetch('/api/dead', { headers: headers() }).catch(() => null);
    if (!response || !response.ok) return;
    const { entries } = await response.json();
    if (!entries.length) return $('dead').replaceChildren(make('li', 'none'));
    $('dead').replaceChildren(...entries.map((letter) => {
      const row = make('li', undefined, 'letter');
      const words = make('span', 'No. ' + letter.number + ', ' + letter.kind + ' of ' + letter.device + ', ' + time(letter.age_ms / 1000) + ' old: ' + letter.why);
      const text = letter.item && (letter.item.prompt || letter.item.payload);
      if (text) words.append(make('span', ' ' + (typeof text === 'string' ? text : text.input || JSON.stringify(text)), 'small'));
      row.append(words);
      if (letter.kind !== 'escalation') {
        const again = make('button', 'Try again');
        again.type = 'button';
        again.setAttribute('aria-label', 'Try letter ' + letter.number + ' again');
        again.addEventListener('click', () => retry(letter.number, again));
        row.append(again);
      }
      return row;
    }));
  }

  async function retry(number, button) {
    button.disabled = true;
    const response = await act('/api/retry', { number }).catch(() => null);
    const said = response ? await response.json().catch(() => ({ error: 'the gateway refused' })) : { error: 'no word from the gateway' };
    put('dead-status', said.error ? 'Letter ' + number + ': ' + said.error : 'Letter ' + number + ' is tried again.');
    deadShown = -1;
    if (!said.error) button.closest('li').remove();
    $('dead-title').scrollIntoView({ block: 'nearest' });
    button.disabled = false;
  }

  async function ask(event) {
    event.preventDefault();
    const question = { input: $('ask-input').value, local: $('ask-local').checked };
    if ($('ask-task').value) question.task = $('ask-task').value;
    $('ask-send').disabled = true;
    put('ask-answer', '');
    facts($('ask-facts'), []);
    put('ask-status', 'Asked.');
    try {
      const response = await act('/api/ask', question);
      if (!response.ok) {
        const text = await response.text();
        let words = text;
        try { words = JSON.parse(text).message; } catch { /* it is words already */ }
        return put('ask-status', 'Refused: ' + words);
      }
      const state = { attempt: 0, ended: false };
      await pieces(response, '\n', (line) => line && frame(JSON.parse(line), state));
      if (!state.ended) put('ask-status', 'The gateway hung up before the outcome.');
    } catch {
      put('ask-status', 'No word from the gateway.');
    } finally {
      $('ask-send').disabled = false;
    }
  }

  function frame(f, state) {
    if (f.kind === 'accepted') {
      put('ask-status', 'Accepted, ' + f.position + ' ahead, about ' + ms(f.eta_ms) + '.');
    } else if (f.kind === 'token') {
      if (f.attempt !== state.attempt) { put('ask-answer', ''); state.attempt = f.attempt; }
      $('ask-answer').append(f.text);
      put('ask-status', 'Answering.');
    } else if (f.kind === 'answer') {
      state.ended = !f.provisional;
      put('ask-answer', f.text === undefined ? JSON.stringify(f.json, null, 1) : f.text);
      put('ask-status', f.provisional ? 'Provisional; the cloud is asked.' : 'Answered, route ' + f.route + ', ' + f.reason.replaceAll('_', ' ') + '.');
      facts($('ask-facts'), [['Route', f.route], ['Reason', f.reason.replaceAll('_', ' ')], ['Confidence', f.confidence === undefined ? 'unknown' : f.confidence.toFixed(2)],
        ['Model', f.model], ['Tokens', f.usage.prompt_tokens + ' read, ' + f.usage.completion_tokens + ' written'],
        ['Time', ms(f.timing.total_ms) + ': ' + ms(f.timing.queued_ms) + ' waiting, ' + ms(f.timing.prefill_ms) + ' reading, ' + ms(f.timing.decode_ms) + ' writing']]);
    } else if (f.kind === 'error') {
      state.ended = true;
      put('ask-status', 'Error, ' + f.code + ': ' + f.message);
    }
  }

  async function live() {
    for (;;) {
      try {
        const response = await fetch('/api/live', { headers: headers() });
        $('token-form').hidden = response.status !== 401;
        if (response.status === 401) {
          put('token-status', token ? 'This token is wrong.' : 'The gateway wants its token.');
          token = '';
          sessionStorage.removeItem('tidegate-token');
          $('token').focus();
          return;
        }
        if (response.ok) {
          deadShown = -1;
          await pieces(response, '\n\n', (event) => {
            const data = event.split('\n').find((line) => line.startsWith('data: '));
            if (data) show(JSON.parse(data.slice(6)));
          });
        }
      } catch { /* the gateway is away: said below, and tried again */ }
      $('stale').hidden = false;
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }

  $('ask').addEventListener('submit', ask);
  $('ask-input').addEventListener('keydown', (e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) $('ask').requestSubmit(); });
  $('token-form').addEventListener('submit', (e) => {
    e.preventDefault();
    token = $('token').value;
    sessionStorage.setItem('tidegate-token', token);
    $('token').value = '';
    live();
  });
  live();
})();
