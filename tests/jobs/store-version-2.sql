PRAGMA application_id = 1398035020;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE hooks (
      job_id TEXT PRIMARY KEY,
      url TEXT NOT NULL,
      base TEXT,
      tries INTEGER NOT NULL DEFAULT 0,
      ended_at REAL,
      due_at REAL
    ) STRICT;
INSERT INTO "hooks" VALUES('waits','http://127.0.0.1:9/hook?secret=s',NULL,0,NULL,NULL);
CREATE TABLE jobs (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      client TEXT NOT NULL,
      digest TEXT NOT NULL,
      priority TEXT NOT NULL,
      state TEXT NOT NULL,
      attempts INTEGER NOT NULL,
      interruptions INTEGER NOT NULL,
      setback TEXT,
      output BLOB NOT NULL,
      is_kept_elsewhere INTEGER NOT NULL,
      files BLOB,
      sync_mode INTEGER NOT NULL,
      progress TEXT NOT NULL,
      accepted_at REAL NOT NULL,
      start_by REAL,
      started_at REAL,
      finished_at REAL,
      video_bytes INTEGER NOT NULL,
      result TEXT,
      error TEXT,
      work TEXT
    ) STRICT;
INSERT INTO "jobs" VALUES(1,'done','zmq:006b8b4567','57f5105302ec19a302e0234c60cf17f010e819f4291c4e15ef3e55640bf85093','normal','done',1,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F646F6E65',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3032396134386264326235613434383839666530393133323162386334663339',0,'{"images_done":1,"images":1,"frames":2,"stage":"done"}',1.79601711488083028798e+09,NULL,1.79601711488305902479e+09,1.79601711495544433599e+09,1578,'{"video":{"url":"file:///srv/stillreel/data/outputs/done/video.mp4","content_type":"video/mp4","file_name":"video.mp4","file_size":1578},"frames":2,"fps":"24/1","duration":0.08333333333333333,"width":64,"height":48,"encoder":"libx264","fallback_reason":"there is no NVIDIA driver: libcuda.so.1 is not found","held_pictures":"synthesised","held_pictures_reason":null,"timings":{"stills":0.0172,"encode":0.0076,"mux":0.0077,"stills_busy":0.0137,"total":0.0686},"request_id":"done","metadata":{"title":"é","deep":[1,{"b":null}],"big":100000000000000000000}}',NULL,NULL);
INSERT INTO "jobs" VALUES(2,'inline','zmq:006b8b4567','ddabb8e19352dcea797dbd182f90e3f947186b8bd59a4a1f65e5b5f4e6482542','normal','done',1,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F696E6C696E65',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3236636338646539346663373437353839343639376264393565386165386465',1,'{"images_done":1,"images":1,"frames":2,"stage":"done"}',1.79601711496265149118e+09,NULL,1.79601711496441388132e+09,1.79601711499694776533e+09,1578,'{"video":{"url":"file:///srv/stillreel/data/outputs/inline/video.mp4","content_type":"video/mp4","file_name":"video.mp4","file_size":1578},"frames":2,"fps":"24/1","duration":0.08333333333333333,"width":64,"height":48,"encoder":"libx264","fallback_reason":"there is no NVIDIA driver: libcuda.so.1 is not found","held_pictures":"synthesised","held_pictures_reason":null,"timings":{"stills":0.0083,"encode":0.0147,"mux":0.0042,"stills_busy":0.0042,"total":0.0292},"request_id":"inline","metadata":null}',NULL,NULL);
INSERT INTO "jobs" VALUES(3,'removed','zmq:006b8b4567','ac35bad792ffd9d12b043a9c7b74787f9575bb9a0f44f21241fc9c76b4e953e2','normal','done',1,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F72656D6F766564',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3564663164396561333836373438666439376531313963313635346135346532',0,'{"images_done":1,"images":1,"frames":2,"stage":"done"}',1.79601711500659966466e+09,NULL,1.7960171150088169575e+09,1796017115.03945,0,'{"video":{"url":"file:///srv/stillreel/data/outputs/removed/video.mp4","content_type":"video/mp4","file_name":"video.mp4","file_size":1578},"frames":2,"fps":"24/1","duration":0.08333333333333333,"width":64,"height":48,"encoder":"libx264","fallback_reason":"there is no NVIDIA driver: libcuda.so.1 is not found","held_pictures":"synthesised","held_pictures_reason":null,"timings":{"stills":0.0028,"encode":0.0181,"mux":0.0033,"stills_busy":0.0007,"total":0.0273},"request_id":"removed","metadata":null}',NULL,NULL);
INSERT INTO "jobs" VALUES(4,'377077d4d14a40c2a89749a83fbbd56b','spool','ac35bad792ffd9d12b043a9c7b74787f9575bb9a0f44f21241fc9c76b4e953e2','normal','done',1,0,NULL,X'2F7372762F7374696C6C7265656C2F73706F6F6C2F646F6E652F6D616E6966657374',1,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3466306163316562626431303438393462656335653430303436383936316531',0,'{"images_done":1,"images":1,"frames":2,"stage":"done"}',1.79601711513912987716e+09,NULL,1.7960171151408481598e+09,1.7960171151800084114e+09,0,'{"video":{"url":"file:///srv/stillreel/spool/done/manifest/video.mp4","content_type":"video/mp4","file_name":"video.mp4","file_size":1578},"frames":2,"fps":"24/1","duration":0.08333333333333333,"width":64,"height":48,"encoder":"libx264","fallback_reason":"there is no NVIDIA driver: libcuda.so.1 is not found","held_pictures":"synthesised","held_pictures_reason":null,"timings":{"stills":0.0027,"encode":0.0261,"mux":0.0051,"stills_busy":0.0007,"total":0.0359},"request_id":"377077d4d14a40c2a89749a83fbbd56b","metadata":null}',NULL,NULL);
INSERT INTO "jobs" VALUES(5,'failed','zmq:006b8b4567','da12e5cc521ef3b9a3d3ab93ec9f678572759dc35d4c260735a7472711dfeb14','normal','failed',1,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F6661696C6564',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3463326233353735326163643464366162666134643636633435323666373532',0,'{"images_done":0,"images":1,"frames":1,"stage":"rendering"}',1796017115.19178,NULL,1.79601711519366693493e+09,1.79601711520465826986e+09,0,NULL,'{"type":"unsupported_image_format","message":"images[0].url: expected an image (AVIF, BMP, GIF, HDR, JPEG, JPEG 2000, PFM, PNG, PPM, Sun raster, TIFF and WebP), found 3 bytes of something else","loc":["images",0,"url"],"retryable":false,"errors":[]}',NULL);
INSERT INTO "jobs" VALUES(6,'running','zmq:006b8b4567','4463024397a7ef4bd5f52da71365ad876a604a978482c0eb5b8c4b56a89a72d2','normal','running',1,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F72756E6E696E67',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3964323038616662393734663462653762316563303534613736356662343933',0,'{"images_done":0,"images":2,"frames":4,"stage":"queued"}',1.79601711524126839633e+09,NULL,1.79601711524376916884e+09,NULL,0,NULL,NULL,'{"request":{"images":[{"url":"cid:0","frames":2},{"url":"http://127.0.0.1:37363/late.ppm","frames":2}],"width":64,"height":48,"request_id":"running"},"attachments":[{"path":"/srv/stillreel/data/attachments/9d208afb974f4be7b1ec054a765fb493/0","layout":null}],"base":null,"any_path":false}');
INSERT INTO "jobs" VALUES(7,'cancelled','zmq:006b8b4567','ac35bad792ffd9d12b043a9c7b74787f9575bb9a0f44f21241fc9c76b4e953e2','normal','cancelled',0,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F63616E63656C6C6564',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3863333265343134306465393438656262316230653666323731333861643039',0,'{"images_done":0,"images":1,"frames":2,"stage":"queued"}',1796017115.29098,NULL,NULL,1.79601711529401445385e+09,0,NULL,'{"type":"client_cancelled","message":"the request was cancelled by its client","loc":[],"retryable":false,"errors":[]}',NULL);
INSERT INTO "jobs" VALUES(8,'expired','zmq:006b8b4567','6818fedfd75e0870fae23864c8c18a8a2efcc541d890f8c1873ddcd42da364e9','normal','expired',0,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F65787069726564',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3537396230306237373261653439303462636330366631643266346136316636',0,'{"images_done":0,"images":1,"frames":2,"stage":"queued"}',1.79601711530267715453e+09,1.79601711550267720222e+09,NULL,1.79601711550485634806e+09,0,NULL,'{"type":"startup_timeout","message":"start_timeout: not begun within 0.2 s","loc":["start_timeout"],"retryable":false,"errors":[]}',NULL);
INSERT INTO "jobs" VALUES(9,'waits','zmq:006b8b4567','7498073a704bfca134bac868c33fe33dd1b111f715ab6b4ca1edba1a83034c5e','low','queued',0,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F7761697473',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3432623963626634336164623465613338616165623134393938393339636263',0,'{"images_done":0,"images":1,"frames":2,"stage":"queued"}',1.79601711551363563534e+09,2.79601711551363563547e+09,NULL,NULL,0,NULL,NULL,'{"request":{"images":[{"url":"cid:0","frames":2}],"width":64,"height":48,"request_id":"waits","priority":"low","start_timeout":1000000000.0,"webhook_url":"http://127.0.0.1:9/hook?secret=s","metadata":{"n":1.0}},"attachments":[{"path":"/srv/stillreel/data/attachments/42b9cbf43adb4ea38aaeb14998939cbc/0","layout":null}],"base":null,"any_path":false}');
INSERT INTO "jobs" VALUES(10,'pixels','zmq:006b8b4567','567ba738b45880540a3ed05ed140120d807de6f92ed93629a8ba12a293aad7b2','normal','queued',0,0,NULL,X'2F7372762F7374696C6C7265656C2F646174612F6F7574707574732F706978656C73',0,X'2F7372762F7374696C6C7265656C2F646174612F6174746163686D656E74732F3464373466313761323838663430653961303762303061363762366538333433',0,'{"images_done":0,"images":3,"frames":12,"stage":"queued"}',1.79601711552485299107e+09,NULL,NULL,NULL,0,NULL,NULL,'{"request":{"images":[{"url":"cid:0","frames":3},{"url":"cid:1","frames":4},{"url":"cid:2","frames":5}],"width":64,"height":48,"request_id":"pixels"},"attachments":[{"path":"/srv/stillreel/data/attachments/4d74f17a288f40e9a07b00a67b6e8343/0","layout":{"shape":[12,16,3],"dtype":"uint8","order":"RGB"}},{"path":"/srv/stillreel/data/attachments/4d74f17a288f40e9a07b00a67b6e8343/1","layout":null},{"path":"/srv/stillreel/data/attachments/4d74f17a288f40e9a07b00a67b6e8343/2","layout":null}],"base":null,"any_path":false}');
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_with_video ON jobs (finished_at, number, video_bytes) WHERE video_bytes > 0;
CREATE INDEX hooks_due ON hooks (due_at) WHERE due_at IS NOT NULL;
COMMIT;
