// mqtt.js against the door: both protocol versions, in the clear and through TLS with and without a certificate.
// The rig `conformance` sets the environment. Each case prints one line, `ok NAME` or `FAILED NAME: why`.
import { readFileSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import mqtt from 'mqtt'

const env = process.env
const PATIENCE_MS = 30_000
const QUIET_MS = 1_000
const below = env.DOOR_TOPICS
const tls = { ca: readFileSync(env.DOOR_CA) }
const places = [
  { name: 'plain', url: `mqtt://localhost:${env.DOOR_PORT}`, device: 'local-js', options: {} },
  {
    name: 'tls, password',
    url: `mqtts://localhost:${env.DOOR_TLS_PORT}`,
    device: 'd7',
    options: { ...tls, username: 'd7', password: env.DOOR_PASSWORD }
  },
  {
    name: 'tls, certificate',
    url: `mqtts://localhost:${env.DOOR_TLS_PORT}`,
    device: 'd8',
    options: { ...tls, cert: readFileSync(env.DOOR_CERT), key: readFileSync(env.DOOR_KEY) }
  }
]

const name = () => randomUUID().slice(0, 12)
const check = (fact, what) => {
  if (!fact) throw new Error(what)
}

// A client whose messages wait in a list.
async function enter(place, version, more = {}) {
  const options = { protocolVersion: version, reconnectPeriod: 0, connectTimeout: PATIENCE_MS, ...place.options, ...more }
  const client = mqtt.connect(place.url, { clientId: name(), ...options })
  const heard = []
  let wake = () => {}
  client.on('message', (topic, payload, packet) => {
    heard.push({ topic, text: payload.toString(), packet })
    wake()
  })
  const connack = await new Promise((resolve, reject) => {
    client.once('connect', resolve)
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed')))
  })
  client.removeAllListeners('error').on('error', () => {})
  const message = async (wanted = () => true, patience = PATIENCE_MS) => {
    const end = Date.now() + patience
    for (;;) {
      while (heard.length > 0) {
        const next = heard.shift()
        if (wanted(next)) return next
      }
      const left = end - Date.now()
      if (left <= 0) return null
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
  return { client, connack, message, leave: () => client.endAsync(), die: () => client.stream.destroy() }
}

const kept = (version, clientId) =>
  version === 5
    ? { clientId, clean: false, properties: { sessionExpiryInterval: 600 } }
    : { clientId, clean: false }
const prompt = (id) => JSON.stringify({ id, task: 'intent', input: 'how warm is it' })
const isAnswer = (id) => ({ text }) => text.includes(`"${id}"`) && text.includes('"kind":"answer"')

const cases = {
  async 'a prompt is accepted and answered'(place, version) {
    const device = await enter(place, version)
    await device.client.subscribeAsync(`${below}/answer/${place.device}`, { qos: 1 })
    for (const qos of [0, 1, 2]) {
      const id = name()
      await device.client.publishAsync(`${below}/prompt/${place.device}`, prompt(id), { qos })
      check(await device.message(isAnswer(id)), 'no answer came')
    }
    await device.leave()
  },
  async 'general messages come at every QoS'(place, version) {
    const topic = `conformance/${name()}`
    const [reader, writer] = [await enter(place, version), await enter(place, version)]
    const [granted] = await reader.client.subscribeAsync(topic, { qos: 1 })
    check(granted.qos === 1, `granted ${granted.qos}`)
    for (const qos of [0, 1, 2]) {
      await writer.client.publishAsync(topic, `at ${qos}`, { qos })
      check((await reader.message())?.text === `at ${qos}`, `nothing came at QoS ${qos}`)
    }
    await Promise.all([reader.leave(), writer.leave()])
  },
  async 'a retained message waits'(place, version) {
    const topic = `conformance/${name()}`
    const writer = await enter(place, version)
    await writer.client.publishAsync(topic, 'kept', { qos: 1, retain: true })
    const reader = await enter(place, version)
    await reader.client.subscribeAsync(topic, { qos: 1 })
    const message = await reader.message()
    check(message?.text === 'kept' && message.packet.retain, 'it did not come retained')
    await writer.client.publishAsync(topic, '', { qos: 1, retain: true })
    await Promise.all([reader.leave(), writer.leave()])
  },
  async 'a session is kept over a reconnect'(place, version) {
    const [topic, who] = [`conformance/${name()}`, name()]
    const first = await enter(place, version, kept(version, who))
    await first.client.subscribeAsync(topic, { qos: 1 })
    await first.leave()
    const writer = await enter(place, version)
    for (const word of ['one', 'two']) await writer.client.publishAsync(topic, word, { qos: 1 })
    const again = await enter(place, version, kept(version, who))
    check(again.connack.sessionPresent, 'the session is not there')
    for (const word of ['one', 'two']) check((await again.message())?.text === word, `${word} did not come`)
    await Promise.all([again.leave(), writer.leave()])
  },
  async 'an outcome waits for a device that was away'(place, version) {
    const [who, id] = [name(), name()]
    const first = await enter(place, version, kept(version, who))
    await first.client.subscribeAsync(`${below}/answer/${place.device}`, { qos: 1 })
    await first.leave()
    const other = await enter(place, version)
    await other.client.publishAsync(`${below}/prompt/${place.device}`, prompt(id), { qos: 1 })
    const again = await enter(place, version, kept(version, who))
    check(await again.message(isAnswer(id)), 'no outcome came')
    await Promise.all([again.leave(), other.leave()])
  },
  async 'a will is published when its client dies'(place, version) {
    const topic = `conformance/${name()}`
    const watcher = await enter(place, version)
    await watcher.client.subscribeAsync(topic, { qos: 1 })
    const rude = await enter(place, version, { will: { topic, payload: Buffer.from('rude'), qos: 1, retain: false } })
    rude.die()
    check((await watcher.message())?.text === 'rude', 'no will came')
    await watcher.leave()
  },
  async 'what is not allowed has a reason'(place, version) {
    const client = await enter(place, version)
    const [granted] = await client.client.subscribeAsync(`${below}/answer/somebody-else`, { qos: 1 }).catch((e) => [e])
    check(granted instanceof Error || granted.qos >= 0x80, `granted ${granted.qos}`)
    if (version === 5) {
      const refused = await client.client.publishAsync(`${below}/prompt/somebody-else`, 'x', { qos: 1 }).catch((e) => e)
      check(refused?.code === 0x87, `publish says ${refused?.code}`)
    }
    await client.leave()
  },
  async 'topic aliases are taken'(place, version) {
    if (version !== 5) return
    const topic = `conformance/${name()}`
    const client = await enter(place, version)
    await client.client.subscribeAsync(topic, { qos: 1 })
    await client.client.publishAsync(topic, 'named', { qos: 1, properties: { topicAlias: 1 } })
    await client.client.publishAsync('', 'aliased', { qos: 1, properties: { topicAlias: 1 } })
    for (const word of ['named', 'aliased']) check((await client.message())?.text === word, `${word} did not come`)
    await client.leave()
  }
}

let failed = 0
for (const place of places) {
  for (const version of [4, 5]) {
    for (const [title, run] of Object.entries(cases)) {
      const full = `mqtt.js: ${title} (${place.name}, ${version === 5 ? '5' : '3.1.1'})`
      try {
        await run(place, version)
        console.log(`ok ${full}`)
      } catch (error) {
        failed += 1
        console.log(`FAILED ${full}: ${error.message}`)
      }
    }
  }
}
process.exit(failed > 0 ? 1 : 0)
