// Which of the server's tasks this page is about: where the addresses of its API begin.
const page = globalThis.document; // there is none in a test without a page
export const API = page?.documentElement.dataset.api ?? "/v1";

// Of many tasks the page's own is the one to see first.
page?.querySelector(".tasks [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
