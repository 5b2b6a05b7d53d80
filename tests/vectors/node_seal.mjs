// Decrypts product.json with SEAL in WebAssembly (npm package node-seal), by proto/PROTOCOL.md alone.
//
//     npm install --prefix tests/vectors node@24 node-seal@7
//     tests/vectors/node_modules/.bin/node tests/vectors/node_seal.mjs tests/vectors
//
// Prints {"outputs": [...], "largest_query_error": number} as JSON.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const home = new URL('.', import.meta.url)
const read = (name) => JSON.parse(readFileSync(new URL(name, home)))
const entry = resolve(process.argv[2], 'node_modules/node-seal/dist/index_throws.js')
const seal = await (await import(pathToFileURL(entry).href)).default()

const { plan, secret_key, query, reply, X, outputs: expected } = read('product.json')
const set = read('parameters.json').find((one) => one.name === plan.parameters)
const N = set.poly_degree
const q = BigInt(set.modulus)
const psi = BigInt(set.root)
const bits = q.toString(2).length
const { rows: b, inner: k, outputs: c } = plan.block

// SEAL's objects.
const parms = new seal.EncryptionParameters(seal.SchemeType.ckks)
parms.setPolyModulusDegree(N)
parms.setCoeffModulus(seal.CoeffModulus.Create(N, Int32Array.of(bits)))
const context = new seal.SEALContext(parms, true, seal.SecLevelType.tc128)
const version = new seal.Plaintext().saveToArray(seal.ComprModeType.none).slice(3, 5)
const evaluator = new seal.Evaluator(context)

// SEAL's containers: a header of 16 bytes and a body, uncompressed.
const joined = (...parts) => Uint8Array.from(Buffer.concat(parts.map((part) => Buffer.from(part))))
const integer = (value, size) => {
  const octets = Buffer.alloc(size)
  for (let i = 0, left = BigInt(value); i < size; i++, left >>= 8n) octets[i] = Number(left & 255n)
  return octets
}
const container = (body) =>
  joined(integer(0xa15e, 2), [16], version, [0], integer(0, 2), integer(16 + body.length, 8), body)
const parmsId = Buffer.from(secret_key.seal, 'base64').subarray(0, 32)
const one = Buffer.alloc(8)
one.writeDoubleLE(1)
const ciphertext = (words, ntt, tail) => {
  const data = joined(integer(words.length, 8), ...words.map((word) => integer(word, 8)))
  const fixed = joined(parmsId, [ntt ? 1 : 0], integer(2, 8), integer(N, 8), integer(1, 8), one, integer(1, 8))
  const made = new seal.Ciphertext()
  made.loadFromArray(context, container(joined(fixed, container(data), tail)))
  return made
}

const unpacked = (packed, count, width) => {
  const words = []
  for (let i = 0, held = 0n, have = 0, next = 0; i < count; i++) {
    while (have < width) held |= BigInt(packed[next++]) << BigInt(have), have += 8
    words.push(held & ((1n << BigInt(width)) - 1n))
    held >>= BigInt(width), have -= width
  }
  return words
}
const power = (base, exponent) => {
  let result = 1n
  for (; exponent; exponent >>= 1n, base = (base * base) % q) if (exponent & 1n) result = (result * base) % q
  return result
}

// Coefficients from NTT form: word i is the value at psi^(2·rev(i)+1).
const powers = [1n]
for (let i = 1; i < 2 * N; i++) powers.push((powers[i - 1] * psi) % q)
const reversed = [...Array(N).keys()].map((i) => parseInt(i.toString(2).padStart(Math.log2(N), '0').split('').reverse().join(''), 2))
const inverseN = power(BigInt(N), q - 2n)
const coefficient = (values, place) => {
  let total = 0n
  values.forEach((value, i) => (total += value * powers[(2 * N - (((2 * reversed[i] + 1) * place) % (2 * N))) % (2 * N)]))
  total = ((total % q) * inverseN) % q
  return Number(total > q / 2n ? total - q : total)
}

// The secret key from its coefficients: values at the same points.
const signs = [...secret_key.coefficients].map((sign) => BigInt('-0+'.indexOf(sign) - 1))
const secretWords = reversed.map((r) => {
  const total = signs.reduce((sum, sign, j) => sum + sign * powers[((2 * r + 1) * j) % (2 * N)], 0n) % q
  return total < 0n ? total + q : total
})
const secretData = container(joined(integer(N, 8), ...secretWords.map((word) => integer(word, 8))))
const secret = new seal.SecretKey()
secret.loadFromArray(context, container(joined(parmsId, integer(N, 8), one, secretData)))
const decryptor = new seal.Decryptor(context, secret)
const decrypted = (encrypted) => {
  const plain = new seal.Plaintext()
  decryptor.decrypt(encrypted, plain)
  const saved = Buffer.from(plain.saveToArray(seal.ComprModeType.none))
  return Array.from({ length: N }, (_, i) => saved.readBigUInt64LE(saved.length - 8 * (N - i)))
}

// The query: c1 is expanded from its seed by this SEAL.
let worst = 0
query.ciphertexts.forEach((one) => {
  const words = unpacked(Buffer.from(one.words, 'base64'), N, bits)
  const values = decrypted(ciphertext(words, true, container(joined([1], Buffer.from(one.seed, 'hex')))))
  X.forEach((row, i) =>
    row.forEach((x, j) => {
      const found = coefficient(values, i * k * c + k - 1 - j)
      worst = Math.max(worst, Math.abs(found - Math.round(x * 2 ** plan.input_scale_bits)))
    })
  )
})

// The reply: restore, decrypt, centre, round.
const dropped = BigInt(bits - plan.reply_bits)
const restored = (word) => {
  const value = (word << dropped) + (1n << (dropped - 1n))
  return value < q ? value : q - 1n
}
const grid = 2 ** Math.floor(Math.log2(plan.precision / 2))
const scale = 2 ** (plan.input_scale_bits + plan.weight_scale_bits)
const found = expected.map((row) => row.map(() => null))
const outputBlocks = Math.ceil(plan.outputs / c)
reply.ciphertexts.forEach((one, index) => {
  const words = Array(N).fill(0n)
  const outputs = unpacked(Buffer.from(one.outputs, 'base64'), b * c, plan.reply_bits).map(restored)
  const positions = outputs.map((_, place) => Math.floor(place / c) * k * c + (place % c) * k + k - 1)
  positions.forEach((position, place) => (words[position] = outputs[place]))
  words.push(...unpacked(Buffer.from(one.mask, 'base64'), N, plan.reply_bits).map(restored))
  const encrypted = ciphertext(words, false, [])
  evaluator.cipherTransformToNttInplace(encrypted)
  const values = decrypted(encrypted)
  positions.forEach((position, place) => {
    const row = Math.floor(index / outputBlocks) * b + Math.floor(place / c)
    const output = (index % outputBlocks) * c + (place % c)
    if (row < found.length && output < plan.outputs)
      found[row][output] = Math.round(coefficient(values, position) / (scale * grid)) * grid
  })
})
console.log(JSON.stringify({ outputs: found, largest_query_error: worst }))
