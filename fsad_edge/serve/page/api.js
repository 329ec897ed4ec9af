// Requests to the service: the token, the errors and the pictures.

const TIMEOUT = 15_000;
/** The path below which a proxy publishes the service, without a slash at the end. */
const ROOT = new URL("..", import.meta.url).pathname.slice(0, -1);
/** Services of one host share the storage, and each has its own token. */
const KEY = `fsad-edge-token${ROOT}`;

/** An error answer; `status` is 0 where no answer came. */
export class ApiError extends Error {
  constructor(status, detail, body = {}, retryAfter = 1) {
    super(detail);
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

export const setToken = (token) => sessionStorage.setItem(KEY, token);
const token = () => sessionStorage.getItem(KEY);

async function call(
  path,
  { method = "GET", body, signal, timeout = TIMEOUT, cache = "no-store" } = {},
) {
  const known = token();
  const headers = known ? { Authorization: `Bearer ${known}` } : {};
  const limit = AbortSignal.timeout(timeout);
  let answer;
  try {
    answer = await fetch(ROOT + path, {
      method,
      body,
      headers,
      signal: signal ?? limit,
      cache,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The service does not answer.");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const detail = problem.detail ?? `The service answered ${answer.status}.`;
  throw new ApiError(
    answer.status,
    detail,
    problem,
    Number(answer.headers.get("Retry-After")) || 1,
  );
}

const json = async (path, options) => (await call(path, options)).json();
const part = encodeURIComponent;

export const recent = (after, limit = 1000) => json(`/v1/recent?after=${after}&limit=${limit}`);
export const recentRejects = (limit) => json(`/v1/recent?decision=anomaly&limit=${limit}`);
export const status = () => json("/v1/status");
export const models = () => json("/v1/models");
export const resetDrift = (model) =>
  json(`/v1/models/${part(model)}/drift/reset`, { method: "POST" });

const TEACHING = 60_000;
const taught = (model, what) => `/v1/models/${part(model)}/${what}`;

/** What was called good, and what was called bad. */
export const normals = (model) => json(taught(model, "normals"));
export const rejects = (model) => json(taught(model, "rejects"));

export const learn = (model, result, who, force) =>
  json(`${taught(model, "normals")}?who=${part(who)}&result=${result}&force=${force}`, {
    method: "POST",
    timeout: TEACHING,
  });

/** Call a result bad; `box` is "left,top,right,bottom" in its pixels, or null. */
export const reject = (model, result, who, box, force) =>
  json(
    `${taught(model, "rejects")}?who=${part(who)}&result=${result}&force=${force}` +
      (box ? `&box=${box}` : ""),
    { method: "POST", timeout: TEACHING },
  );

/** Undo one of `kind`, "normals" or "rejects". */
export const undo = (model, kind, id, who, force) =>
  json(`${taught(model, kind)}/${id}?who=${part(who)}&force=${force}`, {
    method: "DELETE",
    timeout: TEACHING,
  });

export const threshold = (model) => json(taught(model, "threshold"), { timeout: TEACHING });

export const setThreshold = (model, value, who, force) =>
  json(`${taught(model, "threshold")}?who=${part(who)}&value=${value}&force=${force}`, {
    method: "PUT",
    timeout: TEACHING,
  });

export const undoThreshold = (model, who, force) =>
  json(`${taught(model, "threshold")}?who=${part(who)}&force=${force}`, {
    method: "DELETE",
    timeout: TEACHING,
  });

/** The zones of a model, and what each cell of its map counts. */
export const zones = (model) => json(taught(model, "zones"), { timeout: TEACHING });

export const proposedZone = (model) =>
  json(taught(model, "zones/proposal"), { timeout: TEACHING });

/** Add a zone: `{ kind, weight, polygon, note }` on a `shot` or the photograph of a `result`. */
export const addZone = (model, zone, who, force) =>
  json(`${taught(model, "zones")}?who=${part(who)}&force=${force}`, {
    method: "POST",
    body: JSON.stringify(zone),
    timeout: TEACHING,
  });

/** The same, painted in a PNG: what is neither transparent nor black. */
export const addPaintedZone = (model, { kind, weight, note, ...on }, file, who, force) => {
  const [[place, number]] = Object.entries(on); // shot or result
  const weighed = kind === "weight" ? `&weight=${weight}` : "";
  const query = `who=${part(who)}&force=${force}&kind=${kind}${weighed}&note=${part(note)}&${place}=${number}`;
  return json(`${taught(model, "zones")}?${query}`, {
    method: "POST",
    body: file,
    timeout: TEACHING,
  });
};

export const undoZone = (model, id, who, force) =>
  json(`${taught(model, "zones")}/${id}?who=${part(who)}&force=${force}`, {
    method: "DELETE",
    timeout: TEACHING,
  });

/** A shot as the model looks at it: `{ url }`, a blob: URL that the caller revokes. */
export async function shot(model, number) {
  const answer = await call(taught(model, `shots/${number}`), { cache: "default" });
  return { url: URL.createObjectURL(await answer.blob()) };
}

/** The good place that is most like a region of a result, or null; `mm` is what a pixel shows. */
export async function twin(id, region, mm, signal) {
  const scale = mm ? `&mm_per_px=${mm}` : "";
  const { twins } = await json(`/v1/results/${id}/twin?region=${region}${scale}`, { signal });
  return twins[0] ?? null;
}

/** Score one file. Returns its result. */
export async function score(model, file) {
  const form = new FormData();
  form.append("file", file, file.name || "photo");
  const { results } = await json(`/v1/score?model=${part(model)}`, {
    method: "POST",
    body: form,
    timeout: 60_000,
  });
  return results[0];
}

const PICTURES = {
  image: "image?",
  overlay: "overlay?numbers=false&",
  near: "overlay?scale=near&numbers=false&",
};

/**
 * The first picture of a result that is still kept: `{ url, kind }`, or null. The caller revokes the
 * blob: URL. Pictures need the header with the token, so an <img> cannot fetch them.
 *
 * `kinds` are of "image", "overlay" (under its heat map) and "near" (under one that shows what lies
 * well below the threshold, too). Heat maps are without the numbers of their regions. The image of a watched folder may outlast its heat map, and the
 * other way round.
 */
export async function picture(id, kinds, side, signal) {
  for (const kind of kinds) {
    try {
      const answer = await call(`/v1/results/${id}/${PICTURES[kind]}side=${side}`, {
        signal,
        cache: "default",
      });
      return { url: URL.createObjectURL(await answer.blob()), kind };
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
  return null;
}
