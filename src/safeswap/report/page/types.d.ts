// What Python (report/page/samples.py) puts into the page for its browser of answers.

/** Word, whether it refuses, flags, categories. */
export type Verdict = [string, boolean | null, string[], string[]];

/** Text, thought, why it ended. */
export type Given = [string, string | null, string | null];

/** Prompt, reference, each model's answer. */
export type Texts = [string, string | null, (Given | null)[]];

/** Group, benchmark, language, id, tags, discordant, models that judges disagree on, harmful,
 *  verdicts by model and judge. */
export type Row = [number, string, string, string, string[], boolean, number[], boolean, (Verdict | null)[][]];

export interface Group {
  name: string;
  judges: string[];
  /** Name and role. */
  models: [string, string][];
}

export interface Index {
  chunk: number;
  groups: Group[];
  rows: Row[];
}

export interface Question {
  group: number;
  benchmark: string;
  language: string;
  id: string;
  tags: string[];
  discordant: boolean;
  disagree: number[];
  harmful: boolean;
  verdicts: (Verdict | null)[][];
  flags: string[];
}
