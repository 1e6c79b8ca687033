// The pages of the site as one document, for scripts/book_pdf.py.

const anchor = (name, hash = "") => name.replaceAll("/", "-") + (hash ? "--" + hash : "");
const UNPRINTED = ".attn-f[hidden], script, .attn-note, .headerlink, .masks-pause";

async function fetchChapter(name) {
  const address = new URL(`/${name}.html`, location);
  const html = await (await fetch(address)).text();
  const article = new DOMParser().parseFromString(html, "text/html").querySelector("article");
  article.querySelectorAll(UNPRINTED).forEach((node) => node.remove());
  for (const fold of article.querySelectorAll("details")) fold.open = true;
  for (const node of article.querySelectorAll("[id]")) node.id = anchor(name, node.id);
  for (const image of article.querySelectorAll("img")) {
    image.src = new URL(image.getAttribute("src"), address).href;
    image.loading = "eager";
  }
  for (const link of article.querySelectorAll("a[href]")) link.href = new URL(link.getAttribute("href"), address).href;
  article.id = anchor(name);
  article.style.breakBefore = "page";
  return article;
}

/** A link to a page of the book becomes one within the document; to another page of the site, plain text. */
function keepLinksInside(article, names) {
  for (const link of article.querySelectorAll("a[href]")) {
    const to = new URL(link.href);
    if (to.origin !== location.origin) continue;
    const name = to.pathname.slice(1).replace(/\.html$/, "");
    if (names.has(name)) link.setAttribute("href", "#" + anchor(name, decodeURIComponent(to.hash.slice(1))));
    else link.removeAttribute("href");
  }
}

function contents(chapters) {
  const article = document.createElement("article");
  article.className = "bd-article";
  let rows = "", part = "";
  for (const [caption, name, title] of chapters) {
    if (caption !== part) rows += `<p class="pdf-part">${caption}</p>`;
    part = caption;
    rows += `<p class="pdf-line"><a href="#${anchor(name)}">${title}</a><span></span><b data-of="${name}">000</b></p>`;
  }
  article.innerHTML = `<p class="pdf-title">${document.querySelector(".logo__title").textContent}</p><h2>Contents</h2>${rows}`;
  return article;
}

const STYLE = `
  .bd-article .pdf-title { font: 700 30pt/1.1 var(--sans); letter-spacing: -.02em; margin: 22mm 0 14mm; }
  .bd-article .pdf-part { font: 650 8pt/1.4 var(--sans); letter-spacing: .08em; text-transform: uppercase; margin: 10pt 0 2pt; }
  .bd-article .pdf-line { display: flex; gap: 6pt; align-items: baseline; margin: 0 0 1pt; font-size: 10pt; line-height: 1.35; }
  .pdf-line span { flex: 1; border-bottom: .7pt dotted #999; }
  .pdf-line b { font-weight: 400; font-variant-numeric: tabular-nums; min-width: 2.2em; text-align: right; }`;

async function layOut(pages) {
  const names = new Set(pages.map(([, name]) => name));
  const chapters = [];
  for (const [part, name] of pages) chapters.push([part, name, await fetchChapter(name)]);
  chapters.forEach(([, , article]) => keepLinksInside(article, names));
  const titles = chapters.map(([part, name, article]) => {
    const title = article.querySelector("h1").cloneNode(true);
    return [part, name, title.textContent.replace(/^Chapter (\d+)\s*/, "$1. ")];
  });
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
  document.querySelector("article").replaceWith(contents(titles), ...chapters.map(([, , article]) => article));
  await MathJax.startup.promise;
  await MathJax.typesetPromise();
  await Promise.all([...document.images].map((image) => image.decode().catch(() => image.src)));
}

function numberContents(first) {
  for (const place of document.querySelectorAll("[data-of]")) place.textContent = first[place.dataset.of];
}
