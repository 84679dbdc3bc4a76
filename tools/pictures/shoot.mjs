// Takes the pictures: node shoot.mjs CHROMIUM < shots.json, a list of {url, width, parts}. Each part has a file, and the
// selectors of the elements in it.
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const shots = JSON.parse(readFileSync(0, 'utf8'));
const browser = await chromium.launch({
  executablePath: process.argv[2], args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars'],
});
let failed = false;
try {
  for (const { url, width, parts } of shots) {
    const page = await browser.newPage({ viewport: { width, height: 1000 } });
    page.on('pageerror', (error) => { failed = true; console.error(`${url}: ${error.name}: ${error.message}`); });
    page.on('console', (message) => { if (message.type() === 'error') console.error(`${url}: ${message.text()}`); });
    await page.goto(url);
    await page.waitForFunction(() => window.drawn, null, { timeout: 60_000 });
    if (failed) break;
    for (const { file, selectors } of parts) {
      const boxes = [];
      for (const selector of selectors) boxes.push(await page.locator(selector).boundingBox());
      const top = Math.min(...boxes.map((box) => box.y));
      const bottom = Math.max(...boxes.map((box) => box.y + box.height));
      await page.screenshot({ path: file, fullPage: true, clip: { x: 0, y: top, width, height: bottom - top } });
    }
    await page.close();
  }
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
