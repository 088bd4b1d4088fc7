/** What cannot be, in words for the reader. */
export class Refusal extends Error {}
