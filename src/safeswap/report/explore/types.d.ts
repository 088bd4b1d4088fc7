// What Python tells the page (data.py), and what the rules make of it. For the type checker alone.

export interface Parameter {
  name: string;
  default: any;
  doc: string;
  kind: string;
  low: number | null;
  high: number | null;
  choices: string[];
}
export interface Method {
  name: string;
  summary: string;
  source: string;
  parameters: Parameter[];
}
/** A unit of the model; `parts` may have rows of their own in a plan. */
export interface Unit {
  name: string;
  kind: string;
  label: string | null;
  parts: string[];
  donated: boolean;
}
/** Shares and cosines of a granularity by key, or the words why there are none. */
export interface Numbers {
  safety: number[];
  language: number[];
  shares: string | null;
  cosines: number[];
  directions: string | null;
}
export interface Language {
  name: string;
  /** the name with what turns the direction of writing written out */
  shown: string;
  /** its name, the head of a plan's file, and what stands between selector and units, as YAML */
  key: string;
  head: string;
  between: string;
  tables: Record<string, Numbers>;
  /** shares of safety and of the language, by module */
  modules: number[][];
  /** of a sample: low and high end of the difference of shares, by granularity and key */
  intervals: Record<string, [number, number][]>;
}
/** Bytes of a unit: its own, and those of what in it may have rows of their own. */
export interface Weights {
  own: number;
  shared: number;
  router: number;
  experts: [number, number];
}
/** A model that was measured: mean weights of each unit, where they are known. */
export interface Point {
  name: string;
  told: string;
  weights: [number, number][] | null;
}
export interface Data {
  units: Unit[];
  /** granularity → name, kind and layer of the units that it sees */
  views: Record<string, [string, string, string | null][]>;
  /** granularity → what is decided as one */
  keys: Record<string, string[]>;
  languages: Language[];
  weights: Weights[];
  methods: Method[];
  others: string[];
  tau: Record<string, number>;
  /** confidence of the intervals, where the profile is from a sample */
  sampled: number | null;
  profile: string;
  /** by language */
  points: Point[][];
}
/** A method's parameters by name; null where it works them out. */
export type Settings = Record<string, any>;
export interface Row {
  safety: number;
  language: number;
  shares: [number, number] | null;
}
export type Rows = Map<string, Row>;
export interface Choice {
  decision: string;
  safety: number | null;
  language: number | null;
}
export type Choices = Map<string, Choice>;
export type Swaps = Record<string, [number, number]>;
export interface Totals {
  all: number;
  computed: number;
  /** from safety, language, base */
  copied: Record<string, number>;
  /** mean weight of each task vector, by bytes: of all, and of each unit */
  weight: [number, number];
  units: [number, number][];
}
