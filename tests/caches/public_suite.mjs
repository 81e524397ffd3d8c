// Runs tests of a checkout of http-tests/cache-tests, or judges stored results, and prints {id: {kind, result, detail}} as JSON.
//   node public_suite.mjs CHECKOUT run BASE_URL AT_ONCE [ID…]
//   node public_suite.mjs CHECKOUT judge RESULTS.json
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [checkout, action, where, atOnce, ...ids] = process.argv.slice(2)
const load = path => import(pathToFileURL(join(checkout, path)))
const { default: suites } = await load('tests/index.mjs')
const { determineTestResult, resultTypes } = await load('test-engine/lib/results.mjs')

let results
if (action === 'judge') {
  results = JSON.parse(readFileSync(where, 'utf8'))
} else {
  const { runTests, getResults } = await load('test-engine/client/runner.mjs')
  // A verdict needs the results of the tests that a test depends on.
  const chosen = new Set(ids)
  const tests = new Map(suites.flatMap(suite => suite.tests).map(test => [test.id, test]))
  for (const id of chosen) for (const needed of tests.get(id)?.depends_on ?? []) chosen.add(needed)
  const wanted = ids.length === 0 ? suites : suites.map(suite => ({ ...suite, tests: suite.tests.filter(test => chosen.has(test.id)) }))
  await runTests(wanted, false, where, Number(atOnce))
  results = getResults()
}

const names = new Map(Object.entries(resultTypes).map(([name, type]) => [type, name]))
const verdicts = {}
for (const test of suites.flatMap(suite => suite.tests)) {
  if (test.browser_only || results[test.id] === undefined) continue
  const result = names.get(determineTestResult(suites, test.id, results))
  verdicts[test.id] = { kind: test.kind ?? 'required', result, detail: results[test.id] === true ? '' : String(results[test.id][1]) }
}
// The client of the suite keeps connections open.
process.stdout.write(JSON.stringify(verdicts), () => process.exit(0))
